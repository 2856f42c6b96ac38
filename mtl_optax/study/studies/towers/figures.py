"""The figures of the study of towers: losses by width, differences, and the front."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mtl_optax.study.figures.frame import Drawn, grid
from mtl_optax.study.styles import PALETTE, style
from mtl_optax.study.suite import Whole
from mtl_optax.study.towers_tables import FRONT, by_condition, difference
from mtl_optax.study.verdicts.paired import CONFIDENCE, interval
from mtl_optax.study.verdicts.towers import front, measured

MARKERS = ("o", "s", "^", "D", "v")


def losses_by_width(whole: Whole) -> Drawn:
    """A panel a condition and task: training and test loss of both kinds of runs."""
    found = by_condition(whole)
    tasks = next(iter(whole.results.values())).tasks
    figure, axes = grid(len(found) * len(tasks), 3.2, 2.5, columns=len(found))
    panels = [(t, condition) for t in range(len(tasks)) for condition in found]
    for ax, (t, condition) in zip(axes, panels, strict=True):
        widths = found[condition]
        for method in next(iter(widths.values())).outcomes:
            for measure, line in (("test loss", "-"), ("train loss", ":")):
                means = [
                    measured(x.outcomes[method])[measure][:, t].mean()
                    for x in widths.values()
                ]
                look = style(method)
                ax.plot(
                    *(range(len(means)), means),
                    color=look.colour,
                    marker=look.marker,
                    markersize=4,
                    ls=line,
                    label=f"{method}, {measure}",
                )
        ax.set_title(f"{condition}: {tasks[t]}", size="medium")
        ax.set_yscale("log")
        _widths(ax, widths)
    handles, names = axes[0].get_legend_handles_labels()
    columns = min(2, len(found))
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    figure.supxlabel("width of the towers", size="medium")
    figure.supylabel("loss, log scale", size="medium")
    return Drawn(figure, "Loss of the towers that stay on training and test images.")


def mended(whole: Whole) -> Drawn | None:
    """A panel a condition: test loss with auxiliary towers minus without, by width."""
    found = by_condition(whole)
    first = next(iter(whole.results.values()))
    if first.settings.seeds < 2:
        return None
    figure, axes = grid(len(found), 3.2, 2.8, columns=len(found), alike=False)
    for ax, (condition, widths) in zip(axes, found.items(), strict=True):
        ax.axhline(0, color="black", lw=1)
        for t, task in enumerate(first.tasks):
            each = [interval(difference(x, "test loss")[:, t]) for x in widths.values()]
            mean = np.array([x.mean for x in each])
            bounds = [[x.mean - x.low for x in each], [x.high - x.mean for x in each]]
            ax.errorbar(
                *(np.arange(len(each)) + 0.16 * (t - 0.5), mean, bounds),
                fmt=MARKERS[t],
                color=PALETTE[t + 1],
                capsize=2,
                label=task,
            )
        ax.set_title(condition, size="medium")
        _widths(ax, widths)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    figure.supxlabel("width of the towers", size="medium")
    figure.supylabel("100 × test loss, from none", size="medium")
    return Drawn(
        figure,
        f"With auxiliary towers minus without: means and {100 * CONFIDENCE:g} % "
        f"intervals, paired over {first.settings.seeds} seeds. Below 0 they help.",
    )


def fronts(whole: Whole) -> Drawn | None:
    """Test losses of both tasks under all weightings, a line a gamma."""
    if FRONT not in whole.results:
        return None
    found, tasks = front(whole.results[FRONT]), whole.results[FRONT].tasks
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    ax: Any = figure.subplots()
    for g, gamma in enumerate(found.gammas):
        left, right = found.losses[g].mean(axis=1).T
        colour = "black" if gamma == 0 else PALETTE[g]
        label = "without" if gamma == 0 else f"gamma {gamma:g}"
        ax.plot(left, right, marker=MARKERS[g], color=colour, label=label, lw=1.2)
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=f"test loss of {tasks[0]}", ylabel=f"test loss of {tasks[1]}")
    ax.legend(title="auxiliary towers")
    return Drawn(
        figure,
        "A point a weighting of the two tasks, mean over seeds; lower left is better.",
    )


def _widths(ax: Any, widths: dict[int, Any]) -> None:
    ax.set_xticks(range(len(widths)), [str(width) for width in widths])
    ax.grid(axis="x", visible=False)
