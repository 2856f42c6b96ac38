"""What the study shows beside losses: departures at the end, and along the way."""

import numpy as np
import pandas as pd

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.adam_scale.rule import KINDS, PAPERS, SCALES, departures

FLOOR = 1e-17  # where a departure of 0 is drawn
CAPTION = (
    "Departure from the run at scale 1, at the worst of the paper's scales, the median "
    "of the seeds. Frozen trunks are left out."
)


def departure(result: PartResult) -> Drawn:
    """Along the way: a panel for the trunk, one for the heads."""
    figure, axes = grid(2, 4.4, 3.4, columns=2)
    looks, every = styles(result.methods), result.settings.recipe().record_every
    for method, own in result.methods.items():
        found = departures(own, PAPERS)
        for ax, kind in zip(axes, KINDS, strict=True):
            line = np.median(found[kind], axis=1)
            if line.any():
                steps = every * np.arange(1, len(line) + 1)
                look = looks[method]
                drawn = {"color": look.colour, "ls": look.line, "label": method}
                ax.semilogy(steps, np.maximum(line, FLOOR), **drawn)
    for ax, kind in zip(axes, KINDS, strict=True):
        ax.set(title=kind, xlabel="step")
    axes[0].set_ylabel("departure")
    handles = {
        label: line
        for ax in axes
        for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=4)
    return Drawn(figure, CAPTION)


def table(result: PartResult) -> Table:
    """The largest of all seeds after the last step, at each scale."""
    rows = []
    for method, own in result.methods.items():
        found = [departures(own, (scale,)) for scale in SCALES[1:]]
        for kind in KINDS:
            rows.append([method, kind, *(f"{x[kind][-1].max():.1e}" for x in found)])
    note = f"Largest of {result.settings.seeds} seeds, after the last step."
    head = ["method", "part", *(f"×{scale}" for scale in SCALES[1:])]
    return Table("Departure", note, head, rows, styles(result.methods))


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """departures.csv: after the last step, a row a method, part, scale and seed."""
    rows = [
        (method, kind, str(scale), seed, f"{value:.6g}")
        for method, own in result.methods.items()
        for scale in SCALES[1:]
        for kind, found in departures(own, (scale,)).items()
        for seed, value in enumerate(found[-1])
    ]
    names = ["method", "part", "scale", "seed", "departure"]
    return {"departures.csv": pd.DataFrame(rows, columns=names)}
