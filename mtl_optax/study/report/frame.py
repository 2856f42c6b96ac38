"""What all figures share: what one returns, how it becomes a picture, its panels."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

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
MANY = 8  # methods; more of them get lower rows, and a panel each for their curves


class Drawn(NamedTuple):
    """What a figure function returns, or None where there is nothing to draw."""

    figure: Figure
    caption: str


def png(draw: Callable[[Any], Drawn | None], subject: Any) -> tuple[bytes, str] | None:
    """The picture of a figure function, and its caption."""
    with matplotlib.rc_context(STYLE):
        drawn = draw(subject)
        if drawn is None:
            return None
        if not isinstance(drawn, Drawn):
            raise TypeError(
                f"figure {draw.__name__}: return Drawn(figure, caption) or None; got "
                f"{type(drawn).__name__}."
            )
        file = io.BytesIO()
        drawn.figure.savefig(file, format="png")
    return file.getvalue(), drawn.caption


def grid(
    count: int, width: float, height: float, columns: int, alike: bool = True
) -> tuple[Figure, list[Any]]:
    """So many panels, with the same axes if `alike`, in rows; inches a panel."""
    columns = min(columns, max(2, count))
    lines = -(-count // columns)
    size = width * columns, 0.6 + height * lines
    figure, axes = _panels(lines, columns, size, alike)
    panels = list(axes.ravel())
    for empty in panels[count:]:
        empty.set_visible(False)
    for above in panels[max(0, count - columns) : count]:  # the lowest of each column
        above.xaxis.set_tick_params(labelbottom=True)
    return figure, panels[:count]


def rows(methods: list[str], tasks: tuple[str, ...]) -> tuple[Figure, list[Any]]:
    """A panel a task, with a row a method, the first above."""
    height = 1.5 + (0.38 if len(methods) <= MANY else 0.26) * len(methods)
    figure, axes = _panels(1, len(tasks), (9, height), alike=True)
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    return figure, list(axes[0])


def _panels(lines: int, columns: int, size: tuple[float, float], alike: bool) -> Any:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(
        lines, columns, squeeze=False, sharex=alike, sharey=alike
    )
