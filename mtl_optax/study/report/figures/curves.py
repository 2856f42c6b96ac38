"""Curves over training: averaged over windows, few methods in a panel or one.

Curves of few methods share their panels. Of many, each method has a panel of its own,
with the baseline behind it: 35 lines in one panel cannot be told apart.
"""

from itertools import cycle, islice
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import MANY, grid
from mtl_optax.study.report.styles import DASHES, styles

WINDOWS = 50  # over which curves are averaged
BEHIND = "#B0B0B0"


def windows(values: NDArray) -> NDArray:
    """`[records, seeds]` as `[windows, records each, seeds]`; a rest is left out."""
    width = _width(len(values))
    count = len(values) // width
    return values[: count * width].reshape(count, width, -1)


def window_steps(result: PartResult) -> int:
    """Training steps in a window."""
    recipe = result.settings.recipe()
    return _width(recipe.steps // recipe.record_every) * recipe.record_every


def _width(records: int) -> int:
    return max(1, records // WINDOWS)


def are_many(result: PartResult) -> bool:
    """Whether each method gets a panel of its own."""
    return len(result.methods) > MANY


def note(result: PartResult) -> str:
    """What a caption adds where each method has a panel of its own."""
    if not are_many(result):
        return ""
    return f" A panel a method; grey: {result.part.baseline}."


def together(
    result: PartResult, panels: dict[str, dict[str, NDArray]], alike: bool = True
) -> tuple[Figure, list[Any]]:
    """Title -> method -> curve: two panels in a row, all methods in each.

    They have the same axes if `alike`: what is measured in other units has its own.
    """
    figure, axes = grid(len(panels), 4.5, 3, columns=2, alike=alike)
    looks = styles(result.methods)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for method, values in curves.items():
            line = looks[method].line
            above = 2 if line == "solid" else 3  # dashes show one on the other
            look: dict[str, Any] = {"lw": 2, "linestyle": line, "zorder": above}
            if method == SINGLE_TASK:  # the reference, broad and behind
                look = {"lw": 6, "alpha": 0.4, "zorder": 1}
            look["color"] = looks[method].colour
            ax.plot(_middles(values, result), values, label=method, **look)
        ax.set(title=title)
    figure.supxlabel("step", size="medium")
    handles, names = axes[0].get_legend_handles_labels()
    columns = min(MANY, len(names))
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    return figure, axes


def panel_a_method(
    result: PartResult, curves: dict[str, list[NDArray]], names: list[str], title: str
) -> tuple[Figure, list[Any]]:
    """Method -> a curve for each name; the baseline's in grey behind."""
    first = ["solid", (0, (3, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2))]
    number = max(len(names), *map(len, curves.values()))
    lines = list(islice(cycle([*first, *DASHES]), number))
    figure, axes = grid(len(curves), 1.8, 1.5, columns=5)
    looks = styles(result.methods)
    behind = curves.get(result.part.baseline, [])
    for ax, (method, own) in zip(axes, curves.items(), strict=True):
        for values, line in zip(behind, lines, strict=False):
            ax.plot(_middles(values, result), values, color=BEHIND, lw=1, ls=line)
        for values, line in zip(own, lines, strict=False):
            colour = looks[method].colour
            ax.plot(_middles(values, result), values, color=colour, lw=1.8, ls=line)
        ax.set_title(method, size="medium")
    for name, line in zip(names, lines, strict=False):
        axes[0].plot([], [], color="black", ls=line, label=name)
    if len(names) > 1:
        figure.legend(loc="outside upper center", ncols=len(names), title=title)
    figure.supxlabel("step", size="medium")
    return figure, axes


def _middles(values: NDArray, result: PartResult) -> NDArray:
    """The step in the middle of each window."""
    return window_steps(result) * (np.arange(len(values)) + 0.5)
