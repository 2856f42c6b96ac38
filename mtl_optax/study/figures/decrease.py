"""The figure of what one batch does for each loss: one joint step, or one a half."""

import numpy as np
from matplotlib.figure import Figure

from mtl_optax.analysis.comparison import paired_t
from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn
from mtl_optax.study.groups_tables import mean_decrease
from mtl_optax.study.halves import KINDS, SGD_RATE, STEPS
from mtl_optax.study.styles import PALETTE

MARKERS = ("o", "s", "^")


def decrease(results: Results) -> Drawn | None:
    """A panel an optimiser, tasks from left to right, a colour a kind of step."""
    if "joint" not in results.outcomes:
        return None

    values = mean_decrease(results)  # [seeds, kinds, steps, T]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(KINDS), squeeze=False)[0]
    places = np.arange(len(results.tasks))
    for k, (ax, kind) in enumerate(zip(axes, KINDS, strict=True)):
        ax.axhline(0, color="black", lw=1)
        for s, step in enumerate(STEPS):
            own = values[:, k, s]
            mean = own.mean(axis=0)
            bars = None
            if len(own) > 1:
                found = paired_t(own, np.zeros_like(own))
                bars = [mean - found.low, found.high - mean]
            ax.errorbar(
                *(places + 0.2 * (s - 1), mean),
                yerr=bars,
                fmt=MARKERS[s],
                color=PALETTE[s],
                capsize=2,
                label=step,
            )
        ax.set_xticks(places, results.tasks, rotation=30, ha="right", size=8)
        ax.set_title(kind)
    axes[0].set_ylabel("100 × fall of log loss")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return Drawn(
        figure,
        f"How far each loss falls on the batch, from the same parameters and optimiser "
        f"state of the joint run; mean over recorded steps, bars are 95 % intervals "
        f"over seeds. Plain SGD has the rate {SGD_RATE:g}.",
    )
