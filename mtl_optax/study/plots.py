"""The figures of a report; `styles` says how each method looks.

Curves of few methods share their panels. Of many, each method has a panel of its own,
with the baseline behind it: 35 lines in one panel cannot be told apart.
"""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study import intervals
from mtl_optax.study.compare import Results
from mtl_optax.study.methods import SINGLE_TASK
from mtl_optax.study.styles import style

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 150,
}
MANY = 8  # methods; more of them get a panel each
WINDOWS = 50  # over which curves are averaged
SHARE_LIMIT = 1e-5  # shares nearer to 0 or 1 are drawn here
BEHIND = "#B0B0B0"


def write(folder: Path, results: Results) -> dict[str, str]:
    """Writes the figures as PNG; returns file name -> caption."""
    first, baseline = results.tasks[0], results.study.baseline
    window = _width(results) * results.settings.recipe().record_every
    metric = results.problem.metrics[0].name
    many = len(results.outcomes) > MANY
    panels = f" A panel a method; grey: {baseline}." if many else ""
    known = {
        "accuracy": (
            accuracy,
            f"{results.problem.reported_on.capitalize()} {metric}; bars, where wider "
            f"than the dot, are ± 1 sd over seeds.",
        ),
        "differences": (
            differences,
            f"{intervals.title(results)}; dots are means. At loss scale 1.",
        ),
        "shares": (
            shares,
            f"What {first} gets of each update: task weight times loss scale, "
            f"normalised; median over seeds and {window} steps. Shares nearer to 0 or "
            f"100 % than {100 * SHARE_LIMIT:g} % are drawn there.{panels}",
        ),
        "losses": (
            losses,
            f"Training losses before scaling; mean over seeds and {window} "
            f"steps.{panels}",
        ),
    }
    captions = {}
    for name in results.study.figures:
        draw, captions[f"{name}.png"] = known[name]
        with matplotlib.rc_context(STYLE):
            drawn = draw(results)
            if drawn is None:  # nothing to compare with
                del captions[f"{name}.png"]
                continue
            drawn.savefig(folder / f"{name}.png")
    return captions


def grid(
    count: int, width: float, height: float, columns: int
) -> tuple[Figure, list[Any]]:
    """So many panels with the same axes, in rows; inches a panel."""
    columns = min(columns, max(2, count))
    rows = -(-count // columns)
    size = width * columns, 0.6 + height * rows
    figure, axes = _panels(rows, columns, size, sharex=True, sharey=True)
    panels = list(axes.ravel())
    for empty in panels[count:]:
        empty.set_visible(False)
    for above in panels[max(0, count - columns) : count]:  # the lowest of each column
        above.xaxis.set_tick_params(labelbottom=True)
    return figure, panels[:count]


def accuracy(results: Results) -> Figure:
    """A panel a task, a row a method: hollow at scale 1, filled at the large scale."""
    scales = results.study.scales
    faces = ["white", None][-len(scales) :]  # None: the colour of the method
    offsets = [-0.12, 0.12] if len(scales) > 1 else [0]
    figure, axes = _rows(results, list(results.outcomes))
    metric = results.problem.metrics[0]
    for t, ax in enumerate(axes):
        for row, (method, outcome) in enumerate(results.outcomes.items()):
            runs = outcome.score[:, :, t]
            mean, sd = runs.mean(axis=1), _sd(runs)
            look = style(method)
            heights = [row + offset for offset in offsets]
            ax.plot(mean, heights, color=look.colour, lw=1, alpha=0.6)
            for s, face in enumerate(faces):
                ax.errorbar(
                    *(mean[s], heights[s]),
                    xerr=sd[s],
                    fmt=look.marker,
                    color=look.colour,
                    markerfacecolor=face or look.colour,
                    markersize=5,
                    capsize=2,
                )
        unit = f" / {metric.unit}" if metric.unit else ""
        label = f"{results.problem.reported_on} {metric.name}{unit}"
        ax.set(title=_title(results, t), xlabel=label)
    if len(scales) > 1:
        for scale, face in zip(scales, faces, strict=True):
            label = f"loss scale ×{scale}"
            axes[0].plot([], [], "ko", mfc=face or "black", label=label)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def differences(results: Results) -> Figure | None:
    """A panel a task: the paired difference from the baseline, with its interval."""
    compared = intervals.against_baseline(results)
    if not compared:
        return None
    figure, axes = _rows(results, list(compared))
    unit = results.problem.metrics[0].unit.replace("%", "points")
    for t, ax in enumerate(axes):
        ax.axvline(0, color="black", lw=1)
        for row, (method, interval) in enumerate(compared.items()):
            mean, look = interval.mean[0, t], style(method)
            bounds = [[mean - interval.low[0, t]], [interval.high[0, t] - mean]]
            fmt, colour = look.marker, look.colour
            ax.errorbar(
                mean, row, xerr=bounds, fmt=fmt, color=colour, markersize=5, capsize=2
            )
        ax.set(title=results.tasks[t])
    label = f"difference from {results.study.baseline} / {unit}".removesuffix(" / ")
    figure.supxlabel(label, size="medium")
    return figure


def shares(results: Results) -> Figure | None:
    """Share of the first task over training, at each scale."""
    scales = results.study.scales
    known = {
        method: [_shares(outcome.shares[:, s, :, 0]) for s in range(len(scales))]
        for method, outcome in results.outcomes.items()
        if np.isfinite(outcome.shares[0, :, :, 0]).all()
    }
    if not known:
        return None
    if len(results.outcomes) > MANY:
        names = [f"×{scale}" for scale in scales]
        title = f"factor on the loss of {results.tasks[0]}"
        figure, axes = _panel_a_method(results, known, names, title)
    else:
        figure, axes = _together(
            results,
            {
                f"loss of {results.tasks[0]} ×{scale}" if len(scales) > 1 else "": {
                    method: curves[s] for method, curves in known.items()
                }
                for s, scale in enumerate(scales)
            },
        )
    for ax in axes:
        ax.set_yscale("logit")
        ax.set_ylim(SHARE_LIMIT / 2, 1 - SHARE_LIMIT / 2)
        ticks = [1e-4, 1e-2, 0.5, 0.99, 0.9999]
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
    figure.supylabel(f"share of {results.tasks[0]} / %, logit scale", size="medium")
    return figure


def losses(results: Results) -> Figure:
    """Each task at each scale; of many methods the largest scale alone."""
    scales, tasks = results.study.scales, results.tasks
    last = len(scales) - 1

    def curve(method: str, task: int, scale: int) -> NDArray:
        values = _windows(results.outcomes[method].losses[:, scale, :, task])
        return values.mean(axis=(1, 2))

    if len(results.outcomes) > MANY:
        own = {
            method: [curve(method, t, last) for t in range(len(tasks))]
            for method in results.outcomes
        }
        title = f"with the loss of {tasks[0]} ×{scales[last]}" if last else ""
        figure, axes = _panel_a_method(results, own, list(tasks), title)
    else:
        panels = {}
        for t, task in enumerate(tasks):
            for s, scale in enumerate(scales):
                scaled = f", with the loss of {tasks[0]} ×{scale}" if last else ""
                panels[task + scaled] = {
                    method: curve(method, t, s) for method in results.outcomes
                }
        figure, axes = _together(results, panels)
    for ax in axes:
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
    figure.supylabel("cross-entropy / nat", size="medium")
    return figure


def _together(
    results: Results, panels: dict[str, dict[str, NDArray]]
) -> tuple[Figure, list[Any]]:
    """Title -> method -> curve: two panels in a row, all methods in each."""
    figure, axes = grid(len(panels), 4.5, 3, columns=2)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for method, values in curves.items():
            line = style(method).line
            above = 2 if line == "solid" else 3  # dashes show one on the other
            look: dict[str, Any] = {"lw": 2, "linestyle": line, "zorder": above}
            if method == SINGLE_TASK:  # the reference, broad and behind
                look = {"lw": 6, "alpha": 0.4, "zorder": 1}
            look["color"] = style(method).colour
            ax.plot(_steps(values, results), values, label=method, **look)
        ax.set(title=title)
    figure.supxlabel("step", size="medium")
    handles, names = axes[0].get_legend_handles_labels()
    columns = min(MANY, len(names))
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    return figure, axes


def _panel_a_method(
    results: Results, curves: dict[str, list[NDArray]], names: list[str], title: str
) -> tuple[Figure, list[Any]]:
    """Method -> a curve for each name; the baseline's in grey behind."""
    lines = ["solid", (0, (3, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2))]
    figure, axes = grid(len(curves), 1.8, 1.5, columns=5)
    behind = curves.get(results.study.baseline, [])
    for ax, (method, own) in zip(axes, curves.items(), strict=True):
        for values, line in zip(behind, lines, strict=False):
            ax.plot(_steps(values, results), values, color=BEHIND, lw=1, ls=line)
        for values, line in zip(own, lines, strict=False):
            colour = style(method).colour
            ax.plot(_steps(values, results), values, color=colour, lw=1.8, ls=line)
        ax.set_title(method, size="medium")
    for name, line in zip(names, lines, strict=False):
        axes[0].plot([], [], color="black", ls=line, label=name)
    if len(names) > 1:
        figure.legend(loc="outside upper center", ncols=len(names), title=title)
    figure.supxlabel("step", size="medium")
    return figure, axes


def _rows(results: Results, methods: list[str]) -> tuple[Figure, NDArray]:
    """A panel a task, with a row a method, the first above."""
    size = 9, 1.5 + (0.38 if len(methods) <= MANY else 0.26) * len(methods)
    figure, axes = _panels(1, len(results.tasks), size, sharex=True, sharey=True)
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    return figure, axes[0]


def _panels(rows: int, columns: int, size: tuple[float, float], **share: Any) -> Any:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _title(results: Results, index: int) -> str:
    task = results.tasks[index]
    if len(results.study.scales) == 1:
        return task
    return f"{task} (loss scaled)" if index == 0 else f"{task} (loss as it is)"


def _shares(values: NDArray) -> NDArray:
    """Median over seeds and a window; NaN where a diverged run left no number."""
    values = _windows(values)
    known = np.isfinite(values).any(axis=(1, 2))
    middle = np.full(len(values), np.nan)
    middle[known] = np.nanmedian(values[known], axis=(1, 2))
    return np.clip(middle, SHARE_LIMIT, 1 - SHARE_LIMIT)


def _sd(runs: NDArray) -> NDArray:
    """Over the last axis; 0 for one run, which draws no bar."""
    return mean_and_sd(runs, -1).sd if runs.shape[-1] > 1 else np.zeros(len(runs))


def _width(results: Results) -> int:
    """Records in a window."""
    recipe = results.settings.recipe()
    return max(1, recipe.steps // recipe.record_every // WINDOWS)


def _windows(values: NDArray) -> NDArray:
    """`[records, seeds]` as `[windows, records each, seeds]`; a rest is left out."""
    width = max(1, len(values) // WINDOWS)
    count = len(values) // width
    return values[: count * width].reshape(count, width, -1)


def _steps(values: NDArray, results: Results) -> NDArray:
    """The middle of each window."""
    each = _width(results) * results.settings.recipe().record_every
    return each * (np.arange(len(values)) + 0.5)
