"""The figures of the study of towers: losses by width, differences, and the front."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.studies.towers.rule import front
from benchmarks.studies.towers.runs import FACTORS, FRONT, chosen, minus_plain
from mtl_optax.study.data.classification import CROSS_ENTROPY
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import CONFIDENCE, interval
from mtl_optax.study.report.styles import PALETTE, styles

MARKERS = ("o", "s", "^", "D", "v")


def losses_by_width(result: StudyResult) -> Drawn:
    """A panel a condition and task: training and test loss of both kinds of runs."""
    runs, looks = chosen(result), styles(result.first.methods)
    conditions = runs.index.unique("condition")
    panels = [(task, x) for task in result.first.tasks for x in conditions]
    figure, axes = grid(len(panels), 3.2, 2.5, columns=len(conditions))
    for ax, (task, condition) in zip(axes, panels, strict=True):
        own = runs.xs((condition, task), level=("condition", "task"))
        means = own.groupby(level=["method", "width"], sort=False).mean()
        for method, look in looks.items():
            for measure, line in (("test loss", "-"), ("train loss", ":")):
                values = means.loc[method, measure]
                ax.plot(
                    *(range(len(values)), values),
                    color=look.colour,
                    marker=look.marker,
                    markersize=4,
                    ls=line,
                    label=f"{method}, {measure}",
                )
        ax.set_title(f"{condition}: {task}", size="medium")
        ax.set_yscale("log")
        _widths(ax, values.index)
    _legend(figure, axes, min(2, len(conditions)))
    figure.supylabel(f"{CROSS_ENTROPY}, log scale", size="medium")
    return Drawn(figure, "Loss of the towers that stay on training and test images.")


def mended(result: StudyResult) -> Drawn | None:
    """A panel a condition: test loss with auxiliary towers minus without, by width."""
    seeds = result.first.settings.seeds
    if seeds < 2:
        return None
    loss = minus_plain(chosen(result) * FACTORS)["test loss"].droplevel("gamma")
    conditions = loss.index.unique("condition")
    figure, axes = grid(
        *(len(conditions), 3.2, 2.8), columns=len(conditions), alike=False
    )
    for ax, condition in zip(axes, conditions, strict=True):
        ax.axhline(0, color="black", lw=1)
        for t, task in enumerate(result.first.tasks):
            own = loss.xs((condition, task), level=("condition", "task"))
            of_width = own.unstack("width")  # [seeds, widths]
            found = interval(of_width.to_numpy())
            ax.errorbar(
                np.arange(len(of_width.columns)) + 0.16 * (t - 0.5),
                *(found.mean, [found.mean - found.low, found.high - found.mean]),
                fmt=MARKERS[t],
                color=PALETTE[t + 1],
                capsize=2,
                label=task,
            )
        ax.set_title(condition, size="medium")
        _widths(ax, of_width.columns)
    _legend(figure, axes, 2)
    figure.supylabel("100 × test loss, from none", size="medium")
    return Drawn(
        figure,
        f"With auxiliary towers minus without: means and {100 * CONFIDENCE:g} % "
        f"intervals, paired over {seeds} seeds. Below 0 they help.",
    )


def fronts(result: StudyResult) -> Drawn | None:
    """Test losses of both tasks under all weightings, a line a gamma."""
    if FRONT not in result.parts:
        return None
    found, tasks = front(result.parts[FRONT]), result.first.tasks
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    ax: Any = figure.subplots()
    for g, gamma in enumerate(found.gammas):
        colour = "black" if gamma == 0 else PALETTE[g]
        label = "without" if gamma == 0 else f"gamma {gamma:g}"
        line = found.losses[g].mean(axis=1).T
        ax.plot(*line, marker=MARKERS[g], color=colour, label=label, lw=1.2)
    ax.set(xscale="log", yscale="log")
    for axis, task in ((ax.xaxis, tasks[0]), (ax.yaxis, tasks[1])):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_label_text(f"test loss of {task} / {CROSS_ENTROPY.unit}")
    ax.legend(title="auxiliary towers")
    return Drawn(
        figure,
        "A point a weighting of the two tasks, mean over seeds; lower left is better.",
    )


def _legend(figure: Figure, axes: list[Any], columns: int) -> None:
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    figure.supxlabel("width of the towers", size="medium")


def _widths(ax: Any, widths: Any) -> None:
    ax.set_xticks(range(len(widths)), [str(width) for width in widths])
    ax.grid(axis="x", visible=False)
