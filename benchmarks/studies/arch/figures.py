"""The figures of the study of architectures, over all its parts."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.studies.arch.compared import View
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import CONFIDENCE, interval, signs
from mtl_optax.study.report.styles import styles

MOST = 8  # points, where the colours of the map end


def delta_m_against_parameters(views: list[View]) -> Drawn | None:
    """A panel a problem and choice of rates: Δm of each network over its size."""
    if not views:
        return None
    figure, axes = grid(len(views), 4.5, 3.4, columns=2, alike=False)
    looks = styles(name for view in views for name in view.architectures)
    labels: dict[str, Any] = {}
    for ax, view in zip(axes, views, strict=True):
        ax.axhline(0, color="#7F7F7F", lw=1)
        single = view.costs["single_tasks"].iloc[0] / 1000
        (star,) = ax.plot(single, 0, "*", color="#7F7F7F", ms=11)
        labels["single tasks"] = star
        for name, size in view.costs["parameters"].items():
            found, look = interval(view.delta_m[name]), looks[name]
            labels[name] = ax.errorbar(
                *(size / 1000, found.mean),
                yerr=[[found.mean - found.low], [found.high - found.mean]],
                fmt=look.marker,
                color=look.colour,
                markersize=6,
                capsize=2,
                lw=1,
            )
        ax.set_title(f"{view.name}\n{view.title}", size="medium")
    figure.supxlabel("parameters / 1000", size="medium")
    figure.supylabel("Δm against single tasks / %, lower is better", size="medium")
    figure.legend(labels.values(), labels, loc="outside right center", fontsize="small")
    return Drawn(
        figure,
        f"Mean relative loss against a network for each task, and its "
        f"{100 * CONFIDENCE:g} % interval over seeds, paired; the star is those "
        f"networks, at their number of parameters together.",
    )


def change_by_task(views: list[View]) -> Drawn | None:
    """A map a problem and choice of rates: each task's change from single tasks."""
    if not views:
        return None
    rows = [len(view.architectures) for view in views]
    heights = [max(rows[k : k + 2]) for k in range(0, len(rows), 2)]
    size = 10, sum(0.3 * count + 1.2 for count in heights)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
    for ax in axes.flat[len(views) :]:
        ax.set_visible(False)
    for ax, view in zip(axes.flat, views, strict=False):
        _map(ax, view)
    return Drawn(
        figure,
        f"Points of the first metric, minus those of a network for each task; mean "
        f"over seeds, bold where the {100 * CONFIDENCE:g} % interval excludes 0. "
        f"Colours end at ±{MOST}.",
    )


def _map(ax: Any, view: View) -> None:
    changes = [view.change(name) for name in view.architectures]
    means = np.stack([own.mean(axis=0) for own in changes])
    sure = np.stack([signs(own) for own in changes]) != 0
    ax.imshow(means, cmap="RdBu", vmin=-MOST, vmax=MOST, aspect="auto")
    for (row, t), mean in np.ndenumerate(means):
        ax.text(
            *(t, row, f"{mean:+.1f}"),
            ha="center",
            va="center",
            size="small",
            weight="bold" if sure[row, t] else "normal",
            color="white" if abs(mean) > 0.7 * MOST else "black",
        )
    ax.set_xticks(range(means.shape[1]), view.problem.tasks)
    ax.set_yticks(range(len(means)), view.architectures, fontsize="small")
    ax.grid(visible=False)
    ax.set_title(f"{view.name}\n{view.title}", size="medium")
