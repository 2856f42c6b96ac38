"""The figure of training losses."""

from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from mtl_optax.study.compare import Results
from mtl_optax.study.figures import curves
from mtl_optax.study.figures.frame import Drawn


def losses(results: Results) -> Drawn:
    """Each task at each scale; of many methods the largest scale alone."""
    scales, tasks = results.study.scales, results.tasks
    last = len(scales) - 1

    def curve(method: str, task: int, scale: int) -> NDArray:
        values = results.outcomes[method].losses[:, scale, :, task]
        return curves.windows(values).mean(axis=(1, 2))

    if curves.are_many(results):
        own = {
            method: [curve(method, t, last) for t in range(len(tasks))]
            for method in results.outcomes
        }
        title = f"with the loss of {tasks[0]} ×{scales[last]}" if last else ""
        figure, axes = curves.panel_a_method(results, own, list(tasks), title)
    else:
        panels = {}
        for t, task in enumerate(tasks):
            for s, scale in enumerate(scales):
                scaled = f", with the loss of {tasks[0]} ×{scale}" if last else ""
                panels[task + scaled] = {
                    method: curve(method, t, s) for method in results.outcomes
                }
        figure, axes = curves.together(results, panels)
    for ax in axes:
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
    figure.supylabel("cross-entropy / nat", size="medium")
    return Drawn(
        figure,
        f"Training losses before scaling; mean over seeds and "
        f"{curves.window_steps(results)} steps.{curves.note(results)}",
    )
