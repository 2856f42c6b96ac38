"""The figures of the study of conflicts: distributions, over all and by epoch."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.studies.conflicts.pairs import (
    ALONE,
    LABELS,
    SAMPLES,
    TASKS,
    Pairs,
    epochs,
    kinds,
    null,
)
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report.frame import Drawn
from mtl_optax.study.report.styles import PALETTE

COLOURS = {TASKS: PALETTE[2], SAMPLES: PALETTE[1], ALONE: PALETTE[0]}
BINS = {
    "cosine": np.linspace(-1, 1, 61),
    "magnitude": np.linspace(0, 1, 31),
}
NAMES = {"cosine": "cosine", "magnitude": "magnitude similarity"}
PERCENT = (2.5, 97.5)


def _columns(result: StudyResult) -> list[tuple[str, dict[str, Pairs], int, int]]:
    """Title, pairs of each kind, epochs, and the number of shared parameters."""
    return [
        (
            name.split("_")[0] + (f" ×{scale}" if scale != 1 else ""),
            kinds(part, at),
            epochs(part),
            part.problem.facts["shared_parameters"],
        )
        for name, part in result.parts.items()
        for at, scale in enumerate(part.part.scales)
    ]


def histograms(result: StudyResult) -> Drawn:
    """A column a part and scale: cosines above, magnitude similarities below."""
    columns = _columns(result)
    figure, axes = _panels(len(columns), sharex="row")
    for (title, every, _, size), column in zip(columns, axes.T, strict=True):
        for ax, field in zip(column, BINS, strict=True):
            for kind, pairs in every.items():
                values = getattr(pairs, field)
                values = values[np.isfinite(values)]
                weights = np.full(len(values), 1 / len(values))
                ax.hist(
                    *(values, BINS[field]),
                    weights=weights,
                    histtype="step",
                    color=COLOURS[kind],
                    lw=1.5,
                )
            ax.set_yticks([])
            ax.set_xlabel(NAMES[field])
        sd = null(size).cosine.std()
        column[0].axvspan(-2 * sd, 2 * sd, color="#999999", lw=0)
        column[0].set_title(title, size="medium")
    _legend(figure, axes, columns)
    return Drawn(
        figure,
        "Shares of pairs, over all steps and seeds. Grey: two standard deviations of "
        "random vectors around 0.",
    )


def by_epoch(result: StudyResult) -> Drawn:
    """The same over epochs: means, and percentiles of cosines as bands."""
    columns = _columns(result)
    figure, axes = _panels(len(columns), sharex=False)
    for (title, every, windows, _), column in zip(columns, axes.T, strict=True):
        for ax, field in zip(column, BINS, strict=True):
            for kind, pairs in every.items():
                values = getattr(pairs, field)
                parts = np.array_split(values, min(windows, len(values)))
                x, colour = np.arange(1, len(parts) + 1), COLOURS[kind]
                ax.plot(x, [np.nanmean(y) for y in parts], color=colour, lw=1.5)
                if field == "cosine":  # magnitudes have all values from 0 to 1
                    ends = np.array([np.nanpercentile(y, PERCENT) for y in parts])
                    ax.plot(x, ends, color=colour, lw=1, ls="--")
                    ax.fill_between(x, *ends.T, color=colour, alpha=0.1, lw=0)
            ax.set_xlabel("epoch")
            ax.set_ylim((-1.02, 1.02) if field == "cosine" else (0, 1.02))
        column[0].set_title(title, size="medium")
    for ax, field in zip(axes[:, 0], BINS, strict=True):
        ax.set_ylabel(NAMES[field])
    _legend(figure, axes, columns)
    return Drawn(
        figure,
        f"Means of an epoch, over all seeds; of cosines also the {PERCENT[0]:g} and "
        f"{PERCENT[1]:g} percentiles.",
    )


def _panels(count: int, sharex: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(1.6 + 2.0 * count, 4.6), layout="constrained")
    return figure, figure.subplots(2, count, squeeze=False, sharex=sharex)


def _legend(figure: Figure, axes: Any, columns: list[Any]) -> None:
    present = [kind for kind in LABELS if any(kind in x[1] for x in columns)]
    for kind in present:
        axes[0, 0].plot([], [], color=COLOURS[kind], label=LABELS[kind])
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(present))
