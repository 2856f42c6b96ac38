"""The figures of the study of architectures, over all its parts."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mtl_optax.study.arch_cost import single_nets
from mtl_optax.study.arch_scores import View, all_views
from mtl_optax.study.figures.frame import Drawn, grid
from mtl_optax.study.styles import style
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts.paired import CONFIDENCE, interval

MOST = 8  # points, where the colours of the map end


def delta_m_against_parameters(whole: Whole) -> Drawn | None:
    """A panel a problem and choice of rates: Δm of each network over its size."""
    panels = _panels(whole)
    if not panels:
        return None
    figure, axes = grid(len(panels), 4.5, 3.4, columns=2, alike=False)
    for ax, view in zip(axes, panels, strict=True):
        sizes = {name: view.costs[name].size for name in view.results}
        base = sizes[next(iter(sizes))]
        single = single_nets(base, len(view.tasks))
        ax.axhline(0, color="#7F7F7F", lw=1)
        ax.plot(single / 1000, 0, "*", color="#7F7F7F", ms=11, label="single tasks")
        for name, own in sizes.items():
            found, look = interval(view.delta_m(name)), style(name)
            ax.errorbar(
                *(own.total / 1000, found.mean),
                yerr=[[found.mean - found.low], [found.high - found.mean]],
                fmt=look.marker,
                color=look.colour,
                markersize=6,
                capsize=2,
                lw=1,
                label=name,
            )
        ax.set_title(f"{_problem(view)}\n{_rates(view)}", size="medium")
    figure.supxlabel("parameters / 1000", size="medium")
    figure.supylabel("Δm against single tasks / %, lower is better", size="medium")
    labels: dict[str, Any] = {}
    for ax in axes:
        handles, names = ax.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    figure.legend(labels.values(), labels, loc="outside right center", fontsize="small")
    return Drawn(
        figure,
        f"Mean relative loss against a network for each task, and its "
        f"{100 * CONFIDENCE:g} % interval over seeds, paired; the star is those "
        f"networks, at their number of parameters together.",
    )


def change_by_task(whole: Whole) -> Drawn | None:
    """A map a problem and choice of rates: each task's change from single tasks."""
    panels = _panels(whole)
    if not panels:
        return None
    rows = [len(view.results) for view in panels]
    lines = -(-len(panels) // 2)
    heights = [max(rows[2 * k : 2 * k + 2]) for k in range(lines)]
    size = 10, sum(0.3 * rows + 1.2 for rows in heights)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False, height_ratios=heights).ravel()
    for empty in axes[len(panels) :]:
        empty.set_visible(False)
    for ax, view in zip(axes, panels, strict=False):
        _map(ax, view)
    return Drawn(
        figure,
        f"Points of the first metric, minus those of a network for each task; mean "
        f"over seeds, bold where the {100 * CONFIDENCE:g} % interval excludes 0. "
        f"Colours end at ±{MOST}.",
    )


def _map(ax: Any, view: View) -> None:
    scores = view.scores()
    found = {name: interval(x.own - x.single) for name, x in scores.items()}
    means = np.stack([x.mean for x in found.values()])
    ax.imshow(means, cmap="RdBu", vmin=-MOST, vmax=MOST, aspect="auto")
    for row, own in enumerate(found.values()):
        for t in range(len(view.tasks)):
            sure = own.low[t] > 0 or own.high[t] < 0
            ax.text(
                *(t, row, f"{own.mean[t]:+.1f}"),
                ha="center",
                va="center",
                size="small",
                weight="bold" if sure else "normal",
                color="white" if abs(own.mean[t]) > 0.7 * MOST else "black",
            )
    ax.set_xticks(range(len(view.tasks)), view.tasks)
    ax.set_yticks(range(len(found)), list(found), fontsize="small")
    ax.grid(visible=False)
    ax.set_title(f"{_problem(view)}\n{_rates(view)}", size="medium")


def _panels(whole: Whole) -> list[View]:
    """Of problems with two seeds or more."""
    every = all_views(whole.results, whole.measured)
    return [view for view in every if view.first.settings.seeds > 1]


def _problem(view: View) -> str:
    """Its name without that of the network, which comes last."""
    return view.first.problem.name.rpartition(", ")[0]


def _rates(view: View) -> str:
    return view.title.partition(",")[0].replace(" on validation data", "")
