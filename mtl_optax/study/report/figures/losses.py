"""The figure of training losses."""

from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.figures import curves
from mtl_optax.study.report.frame import Drawn


def losses(result: PartResult) -> Drawn:
    """Each task at each scale; of many methods the largest scale alone."""
    scales, tasks = result.part.scales, result.tasks
    last, kinds = len(scales) - 1, result.problem.loss
    one = kinds[0] if len(kinds) == 1 else None

    def curve(method: str, task: int, scale: int) -> NDArray:
        values = result.methods[method].losses[:, scale, :, task]
        with np.errstate(over="ignore", invalid="ignore"):  # of runs that diverge
            return curves.windows(values).mean(axis=(1, 2))

    if curves.are_many(result):
        own = {
            method: [curve(method, t, last) for t in range(len(tasks))]
            for method in result.methods
        }
        title = f"with the loss of {tasks[0]} ×{scales[last]}" if last else ""
        named = zip(tasks, kinds, strict=True)
        names = list(tasks) if one else [f"{task}: {kind}" for task, kind in named]
        figure, axes = curves.panel_a_method(result, own, names, title)
    else:
        panels = {}
        for t, task in enumerate(tasks):
            for s, scale in enumerate(scales):
                scaled = f", with the loss of {tasks[0]} ×{scale}" if last else ""
                panels[task + scaled] = {
                    method: curve(method, t, s) for method in result.methods
                }
        figure, axes = curves.together(result, panels, alike=one is not None)
        for panel, ax in enumerate(axes if one is None else ()):
            ax.set_ylabel(str(kinds[panel // len(scales)]))
    if _all_positive(axes):
        for ax in axes:
            ax.set_yscale("log")
            ax.yaxis.set_minor_locator(NullLocator())
    if one or curves.are_many(result):
        figure.supylabel(str(one or "loss of each task"), size="medium")
    return Drawn(
        figure,
        f"Training losses before scaling; mean over seeds and "
        f"{curves.window_steps(result)} steps.{curves.note(result)}",
    )


def _all_positive(axes: list[Any]) -> bool:
    """Whether the curves have logarithms, as far as they are numbers."""
    drawn = [
        line.get_ydata() for ax in axes for line in ax.lines if len(line.get_ydata())
    ]
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    return bool(values.size and (values > 0).all())
