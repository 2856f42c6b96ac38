"""The figure of learned weights over training."""

import numpy as np
from matplotlib.figure import Figure

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.styles import PALETTE

READINGS = ("task_weights", "objective_weights")
CAPTION = (
    "Weights of the tasks over training, mean and range over seeds: {methods}. forum: "
    "those of the validation gradients, of which its update is made."
)


def weights(result: PartResult) -> Drawn | None:
    """A panel a method that learns weights, a line a task."""
    known = {
        method: own.readings.get(READINGS[1], own.readings.get(READINGS[0]))
        for method, own in result.methods.items()
    }
    moving = {
        method: values[:, 0]
        for method, values in known.items()
        if values is not None and np.ptp(values[:, 0], axis=0).max() > 0
    }
    if not moving:
        return None
    figure, axes = _drawn(result, moving)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    figure.supxlabel("step", size="medium")
    figure.supylabel("weight", size="medium")
    return Drawn(figure, CAPTION.format(methods=", ".join(moving)))


def _drawn(result: PartResult, moving: dict) -> tuple[Figure, list]:
    figure, axes = grid(len(moving), 4.5, 2.8, columns=2, alike=False)
    every = result.settings.recipe().record_every
    for ax, (method, values) in zip(axes, moving.items(), strict=True):
        steps = every * np.arange(1, len(values) + 1)
        for t, task in enumerate(result.tasks):
            own = values[..., t]  # [records, seeds]
            ax.plot(steps, own.mean(axis=1), color=PALETTE[t], label=task, lw=2)
            band = own.min(axis=1), own.max(axis=1)
            ax.fill_between(steps, *band, color=PALETTE[t], alpha=0.2, lw=0)
        ax.axhline(0, color="black", lw=0.6)
        ax.set_title(method, size="medium")
    return figure, axes
