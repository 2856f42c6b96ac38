"""Curves of the study: success over training, and how often tasks conflict."""

from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mtl_optax.study.engine.study import MethodResult, PartResult
from mtl_optax.study.report.figures import curves
from mtl_optax.study.report.frame import Drawn
from mtl_optax.study.report.paired import CONFIDENCE, interval
from mtl_optax.study.studies.rl.training import LOOK, Watched


def of_runs(own: MethodResult, name: str) -> NDArray:
    """One of `Watched`, mean over tasks, `[records, seeds]`."""
    assert own.path is not None
    return own.path[:, 0, :, Watched._fields.index(name)].mean(axis=-1)


def windowed(values: NDArray) -> NDArray:
    """`[windows, seeds]` of `[records, seeds]`."""
    return curves.windows(values).mean(axis=1)


def learning(result: PartResult) -> Drawn:
    """Success over training, a panel a method, with its interval over seeds."""
    runs = {
        method: windowed(of_runs(own, "success"))
        for method, own in result.methods.items()
    }
    lines = {method: [own.mean(axis=1)] for method, own in runs.items()}
    figure, axes = curves.panel_a_method(result, lines, ["success"], "")
    for ax, own in zip(axes, runs.values(), strict=True):
        ax.set_ylim(0, 100)
        if own.shape[1] > 1:
            found = interval(own.T)
            line = ax.lines[-1] if len(ax.lines[-1].get_xdata()) else ax.lines[-2]
            x, colour = line.get_xdata(), line.get_color()
            ax.fill_between(x, found.low, found.high, color=colour, alpha=0.2, lw=0)
    few_ticks(axes)
    figure.supylabel("success / %", size="medium")
    return Drawn(
        figure,
        f"Success at the last step during training, mean over tasks, of {LOOK} "
        f"episodes a task and seed; shaded: {100 * CONFIDENCE:g} % interval of the "
        f"mean over {result.settings.seeds} seeds. Grey: {result.part.baseline}.",
    )


def conflicts(result: PartResult) -> Drawn | None:
    """Share of pairs of tasks in conflict, of actor and critics, over training."""
    lines = {}
    for method, own in result.methods.items():
        pair = [of_runs(own, f"{name}_conflicts") for name in ("actor", "critic")]
        if any(x.any() for x in pair):  # else tasks share nothing
            lines[method] = [windowed(x).mean(axis=1) for x in pair]
    if not lines:
        return None
    names = ["actor", "critics"]
    figure, axes = curves.panel_a_method(result, lines, names, "gradients of")
    few_ticks(axes)
    figure.supylabel("pairs of tasks in conflict / %", size="medium")
    return Drawn(
        figure,
        "Pairs of tasks whose gradients on what they share have a negative cosine, on "
        "a batch drawn at each record, before the method; mean over seeds. Grey: "
        f"{result.part.baseline}.",
    )


def few_ticks(axes: list) -> None:
    """Steps have five digits, and panels are narrow."""
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(3))
