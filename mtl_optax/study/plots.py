"""The figures of a report. One colour a method, the same in every figure and report."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study.compare import Results
from mtl_optax.study.methods import SINGLE_TASK

# Okabe and Ito's palette, safe for colour-blind readers, for the default methods; then
# dark ones of Paul Tol's.
COLOURS = {
    "unitary": "#000000",
    "pcgrad": "#E69F00",
    "cagrad": "#0072B2",
    "mgda": "#D55E00",
    "imtl_g": "#009E73",
    "upgrad": "#56B4E9",
    "single_task": "#7F7F7F",
    "nash_mtl": "#CC79A7",
    "aligned_mtl": "#999933",
    "mean": "#882255",
    "uw": "#332288",
    "graddrop": "#AA4499",
}
# With two tasks PCGrad is exactly twice UPGrad; dashes let one be seen on the other.
DASHED = ("upgrad", "mean", "nash_mtl")
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
SHARE_LIMIT = 1e-5  # shares nearer to 0 or 1 are drawn here


def write(folder: Path, results: Results) -> dict[str, str]:
    """Writes the figures as PNG; returns file name -> caption."""
    first, window = results.tasks[0], _window(results)
    known = {
        "accuracy": (
            accuracy,
            "Test accuracy; bars, where wider than the dot, are ± 1 sd over seeds.",
        ),
        "shares": (
            shares,
            f"What {first} gets of each update: task weight times loss scale, "
            f"normalised; median over seeds and {window} steps. Shares nearer to 0 or "
            f"100 % than {100 * SHARE_LIMIT:g} % are drawn there.",
        ),
        "losses": (
            losses,
            f"Training losses before scaling; mean over seeds and {window} steps.",
        ),
    }
    figures = {f"{name}.png": known[name] for name in results.study.figures}
    for name, (draw, _) in figures.items():
        with matplotlib.rc_context(STYLE):
            draw(results).savefig(folder / name)
    return {name: caption for name, (_, caption) in figures.items()}


def accuracy(results: Results) -> Figure:
    """A panel a task, a row a method: hollow at scale 1, filled at the large scale."""
    scales = results.study.scales
    faces = ["white", None][-len(scales) :]  # None: the colour of the method
    offsets = [-0.12, 0.12] if len(scales) > 1 else [0]
    height = 1.5 + 0.38 * len(results.outcomes)
    figure, axes = _panels(1, len(results.tasks), (9, height), sharex=True, sharey=True)
    for t, ax in enumerate(axes[0]):
        for row, (method, outcome) in enumerate(results.outcomes.items()):
            runs = outcome.accuracy["test"][:, :, t]
            mean, sd = runs.mean(axis=1), _sd(runs)
            colour = COLOURS[method]
            heights = [row + offset for offset in offsets]
            ax.plot(mean, heights, color=colour, lw=1, alpha=0.6)
            for s, face in enumerate(faces):
                ax.errorbar(
                    *(mean[s], heights[s]),
                    xerr=sd[s],
                    fmt="o",
                    color=colour,
                    markerfacecolor=face or colour,
                    capsize=2,
                )
        ax.set(title=_title(results, t), xlabel="test accuracy / %")
    axes[0, 0].set_yticks(range(len(results.outcomes)), list(results.outcomes))
    axes[0, 0].invert_yaxis()
    if len(scales) > 1:
        for scale, face in zip(scales, faces, strict=True):
            label = f"loss scale ×{scale}"
            axes[0, 0].plot([], [], "ko", mfc=face or "black", label=label)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def shares(results: Results) -> Figure:
    """A panel a scale: share of the first task over training."""
    scales = results.study.scales
    figure, axes = _panels(1, len(scales), (9, 4), sharey=True)
    for s, (ax, scale) in enumerate(zip(axes[0], scales, strict=True)):
        for method, outcome in results.outcomes.items():
            values = outcome.shares[:, s, :, 0]
            if np.isfinite(values[0]).all():
                middle = _median(_windows(values, results))
                middle = np.clip(middle, SHARE_LIMIT, 1 - SHARE_LIMIT)
                _curve(ax, method, middle, results)
        ax.set_yscale("logit")
        ax.set_ylim(SHARE_LIMIT / 2, 1 - SHARE_LIMIT / 2)
        ticks = [1e-4, 1e-2, 0.1, 0.5, 0.9, 0.99, 0.9999]
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        title = f"loss of {results.tasks[0]} ×{scale}" if len(scales) > 1 else ""
        ax.set(title=title, xlabel="step")
    axes[0, 0].set_ylabel(f"share of {results.tasks[0]} / %, logit scale")
    _legend(figure, axes[0, 0])
    return figure


def losses(results: Results) -> Figure:
    """A row a task, a column a scale; with one scale two tasks in a row."""
    scales, tasks = results.study.scales, results.tasks
    cells = [(t, s) for t in range(len(tasks)) for s in range(len(scales))]
    columns = max(2, len(scales))
    rows = -(-len(cells) // columns)
    size = 9, 0.5 + 3 * rows
    figure, axes = _panels(rows, columns, size, sharex=True, sharey=True)
    for ax, (t, s) in zip(axes.ravel(), cells, strict=False):
        for method, outcome in results.outcomes.items():
            values = _windows(outcome.losses[:, s, :, t], results)
            _curve(ax, method, values.mean(axis=(1, 2)), results)
        ax.set_yscale("log")
        scaled = f", with the loss of {tasks[0]} ×{scales[s]}"
        ax.set_title(tasks[t] + (scaled if len(scales) > 1 else ""))
    for ax in axes[:, 0]:
        ax.set_ylabel("cross-entropy / nat")
    for ax in axes[-1]:
        ax.set_xlabel("step")
    _legend(figure, axes[0, 0])
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float], **share: Any) -> Any:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _title(results: Results, index: int) -> str:
    task = results.tasks[index]
    if len(results.study.scales) == 1:
        return task
    return f"{task} (loss scaled)" if index == 0 else f"{task} (loss as it is)"


def _median(values: NDArray) -> NDArray:
    """Over seeds and the steps of a window; NaN where a diverged run left no number."""
    known = np.isfinite(values).any(axis=(1, 2))
    middle = np.full(len(values), np.nan)
    middle[known] = np.nanmedian(values[known], axis=(1, 2))
    return middle


def _sd(runs: NDArray) -> NDArray:
    """Over the last axis; 0 for one run, which draws no bar."""
    return mean_and_sd(runs, -1).sd if runs.shape[-1] > 1 else np.zeros(len(runs))


def _window(results: Results) -> int:
    return max(1, results.settings.steps // 50)


def _windows(values: NDArray, results: Results) -> NDArray:
    """`[steps, seeds]` as `[windows, steps a window, seeds]`; a rest is left out."""
    width = _window(results)
    count = len(values) // width
    return values[: count * width].reshape(count, width, -1)


def _curve(ax: Any, method: str, values: NDArray, results: Results) -> None:
    width = _window(results)
    steps = width * (np.arange(len(values)) + 0.5)
    style: dict[str, Any] = {"lw": 2, "linestyle": "solid"}
    if method in DASHED:
        style["linestyle"] = (0, (4, 3))
    if method == SINGLE_TASK:  # the reference, broad and behind
        style = {"lw": 6, "alpha": 0.4, "zorder": 1}
    ax.plot(steps, values, color=COLOURS[method], label=method, **style)


def _legend(figure: Figure, ax: Any) -> None:
    handles, names = ax.get_legend_handles_labels()
    if names:
        figure.legend(
            handles, names, loc="outside lower center", ncols=min(7, len(names))
        )
