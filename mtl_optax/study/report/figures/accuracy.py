"""The figure of scores: the first metric of each method and task."""

from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import Drawn, rows
from mtl_optax.study.report.styles import styles

WIDE = 4  # panels that are wide enough for a label each


def accuracy(result: PartResult) -> Drawn:
    """A panel a task, a row a method: hollow at scale 1, filled at the largest."""
    problem, scales = result.problem, result.part.scales
    metric = problem.metrics[0]
    number = len(scales)
    offsets = np.linspace(-0.12, 0.12, number) if number > 1 else [0]
    looks = styles(result.methods)
    figure, axes = rows(list(result.methods), result.tasks)
    for t, ax in enumerate(axes):
        for row, (method, own) in enumerate(result.methods.items()):
            runs = own.score[:, :, t]
            mean = runs.mean(axis=1)
            # One run has no sd and gets no bar.
            sd = mean_and_sd(runs, 1).sd if runs.shape[1] > 1 else np.zeros_like(mean)
            look = looks[method]
            heights = [row + offset for offset in offsets]
            ax.plot(mean, heights, color=look.colour, lw=1, alpha=0.6)
            for s, face in enumerate(_faces(look.colour, number)):
                ax.errorbar(
                    *(mean[s], heights[s]),
                    xerr=sd[s],
                    fmt=look.marker,
                    color=look.colour,
                    markerfacecolor=face,
                    markersize=5,
                    capsize=2,
                )
        label = f"{problem.reported_on} {metric}"
        ax.set(title=_title(result, t))
        if len(axes) <= WIDE:
            ax.set_xlabel(label)
    if len(axes) > WIDE:
        figure.supxlabel(label, size="medium")
    if len(scales) > 1:
        for scale, face in zip(scales, _faces("black", number), strict=True):
            axes[0].plot([], [], "ko", mfc=face, label=f"loss scale ×{scale}")
        figure.legend(loc="outside lower center", ncols=number)
    return Drawn(
        figure,
        f"{problem.reported_on.capitalize()} {metric.name}; bars, where wider than the "
        "dot, are ± 1 sd over seeds.",
    )


def _faces(colour: str, number: int) -> list[Any]:
    """Of the markers at each scale, from hollow to filled; of one scale, filled."""
    full = np.array(to_rgb(colour))
    filled = np.linspace(0, 1, number) if number > 1 else [1]
    return [tuple(1 - x * (1 - full)) for x in filled]


def _title(result: PartResult, index: int) -> str:
    task = result.tasks[index]
    if len(result.part.scales) == 1:
        return task
    return f"{task} (loss scaled)" if index == 0 else f"{task} (loss as it is)"
