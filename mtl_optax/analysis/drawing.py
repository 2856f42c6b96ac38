"""What the plots share: axes to draw on, checks of arrays and names, looks of tasks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mtl_optax.analysis.palette import COLOURS

Names = Sequence[Any] | None
LINES = "solid", "dashed", "dotted", "dashdot"  # when colours begin anew


def looks() -> Iterator[tuple[str, str]]:
    """Colour and line of each task; no two of the first forty are alike."""
    while True:
        for line in LINES:
            yield from ((color, line) for color in COLOURS)


def axes_of(ax: Any, projection: str | None = None) -> Any:
    """Those given, or new ones, for which Matplotlib must be there."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "mtl_optax.analysis.plots draws with Matplotlib, which is not installed: "
            "pip install matplotlib, or mtl-optax[study]."
        ) from error
    _, ax = plt.subplots(
        layout="constrained",
        subplot_kw={"projection": projection} if projection else {},
    )
    return ax


def array_of(what: str, values: Any, shape: str, square: bool = False) -> Any:
    """In NumPy, of this shape: as many axes as it names, none of them empty."""
    array = np.asarray(values, dtype=float)
    wrong = array.ndim != shape.count(",") + 1 or 0 in array.shape
    if wrong or (square and array.shape[-1] != array.shape[-2]):
        raise ValueError(f"{what} must be {shape}; got shape {array.shape}.")
    return array


def names_of(caller: str, names: Names, num_tasks: int) -> list[str]:
    """One string a task."""
    if names is None:
        return [f"task {t}" for t in range(num_tasks)]
    if isinstance(names, str) or len(names) != num_tasks:
        raise ValueError(
            f"{caller}: names must name each of the {num_tasks} tasks; got {names!r}. "
            "mtl_optax.task_names(losses) gives them in order."
        )
    return [str(name) for name in names]


def steps_of(caller: str, steps: Any, count: int) -> Any:
    """When each record was taken."""
    if steps is None:
        return np.arange(count)
    if np.shape(steps) != (count,):
        raise ValueError(
            f"{caller}: steps must say when each of the {count} records was taken, "
            f"[{count}]; got shape {np.shape(steps)}."
        )
    return np.asarray(steps)
