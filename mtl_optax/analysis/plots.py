"""Pictures of what was measured: each function draws one, and returns its axes.

They take plain arrays, and `ax`, where to draw; None opens a figure. Everything else of
a picture is Matplotlib's own: titles, limits and files are set on the axes that come
back.

Matplotlib comes with the extra `study`, and is asked for at the first call only.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_optax.analysis import drawing
from mtl_optax.analysis.drawing import Names
from mtl_optax.analysis.palette import COLOURS, GREY
from mtl_optax.analysis.pareto import pareto_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def conflict_matrix(cosines: Any, names: Names = None, *, ax: Any = None) -> "Axes":
    """The cosine of each pair of task gradients, as a coloured and numbered matrix.

    Args:
      cosines: `[T, T]`, as :func:`mtl_optax.task_cosines` gives them. NaN stays blank.
      names: of the T tasks, as :func:`mtl_optax.task_names` gives them; None numbers
        them.
      ax: Matplotlib's axes to draw on; None opens a figure.

    Returns:
      The axes. Blue pairs agree, red ones conflict, white ones are orthogonal.

    Raises:
      ImportError: without Matplotlib.
      ValueError: for another shape, or another number of names.

    When not to use it: on one step of a noisy run, which says little about the next;
    average over steps first, or see :func:`conflict_band`.

    Example:
      >>> import matplotlib
      >>> matplotlib.use("Agg")  # no window
      >>> from mtl_optax.analysis import plots
      >>> ax = plots.conflict_matrix([[1.0, -0.4], [-0.4, 1.0]], ["lm", "aux"])
      >>> [text.get_text() for text in ax.texts]
      ['1.00', '-0.40', '-0.40', '1.00']
    """
    values = drawing.array_of(
        "conflict_matrix: cosines", cosines, "[T, T]", square=True
    )
    names = drawing.names_of("conflict_matrix", names, len(values))
    ax = drawing.axes_of(ax)
    image = ax.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.6 else "black"
            style: Any = {"ha": "center", "va": "center", "color": colour}
            ax.text(column, row, f"{value:.2f}", **style)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.grid(False)
    ax.figure.colorbar(image, ax=ax, label="cosine of gradients")
    return ax


def conflict_band(
    cosines: Any,
    steps: Any = None,
    *,
    window: int = 1,
    percentiles: tuple[float, float] = (10, 90),
    ax: Any = None,
) -> "Axes":
    """Cosines over training: their mean and the band that most of them lie in.

    Args:
      cosines: `[N, T, T]`, the matrix of each recorded step; mean and band are those
        of its T (T - 1) / 2 pairs. A NaN leaves a gap.
      steps: `[N]`, when they were recorded; None counts them.
      window: so many records in a row are pooled into one point, a Python int. With two
        tasks a record has one pair, so that only a window has a band.
      percentiles: the lower and the upper edge of the band.
      ax: as in :func:`conflict_matrix`.

    Returns:
      The axes, with a line at 0, below which pairs conflict.

    Raises:
      ImportError: without Matplotlib.
      ValueError: for other shapes, fewer than two tasks, or a window larger than N.

    When not to use it: to tell *which* tasks conflict; a mean hides one bad pair.

    Example:
      >>> import matplotlib, numpy as np
      >>> matplotlib.use("Agg")
      >>> from mtl_optax.analysis import plots
      >>> noise = np.random.default_rng(0).uniform(-1, 1, 200)
      >>> cosines = np.eye(2) + noise[:, None, None] * (1 - np.eye(2))
      >>> ax = plots.conflict_band(cosines, window=20)
      >>> len(ax.lines[0].get_xdata())
      10
    """
    values = drawing.array_of(
        "conflict_band: cosines", cosines, "[N, T, T]", square=True
    )
    if values.shape[1] < 2:
        raise ValueError("conflict_band: one task has no pair to conflict with.")
    if not 1 <= window <= len(values):
        raise ValueError(
            f"conflict_band: window must be from 1 to the {len(values)} records; got "
            f"{window}."
        )
    points = len(values) // window  # what is left over at the end is no full window
    pairs = values[(slice(None), *np.triu_indices(values.shape[1], 1))]
    pooled = pairs[: points * window].reshape(points, -1)
    ends = drawing.steps_of("conflict_band", steps, len(values))[window - 1 :: window][
        :points
    ]
    ax = drawing.axes_of(ax)
    low, high = np.percentile(pooled, percentiles, axis=1)
    label = "{:g} to {:g} % of pairs".format(*percentiles)
    ax.fill_between(ends, low, high, color=COLOURS[0], alpha=0.25, lw=0, label=label)
    ax.plot(ends, np.mean(pooled, axis=1), color=COLOURS[0], label="mean of pairs")
    ax.axhline(0, color=GREY, lw=1, zorder=0)
    ax.set(xlabel="step", ylabel="cosine of gradients")
    ax.legend()
    return ax


def pareto_front(
    losses: Any,
    names: Names = None,
    *,
    label: str | None = None,
    color: str = COLOURS[0],
    ax: Any = None,
) -> "Axes":
    """Runs in the plane, or the space, of two or three losses, and which of them count.

    Args:
      losses: `[N, 2]` or `[N, 3]`, one row a run, lower is better, for example
        `losses` of :func:`mtl_optax.pareto_front`. Rows with a NaN are left out.
      names: of the tasks; None numbers them.
      label: what the legend calls these runs; None for no legend.
      color: any colour of Matplotlib's; `mtl_optax.analysis.palette.COLOURS` has ten.
      ax: as in :func:`conflict_matrix`, to draw another front beside the first; for
        three losses one with `projection="3d"`.

    Returns:
      The axes. Runs that none of the others dominates are filled, the others hollow; in
      two dimensions a line bounds what the front dominates.

    Raises:
      ImportError: without Matplotlib.
      ValueError: for other shapes, another number of names, or flat axes for three
        losses.

    When not to use it: with four tasks or more: draw pairs of columns, or compare
    :func:`mtl_optax.analysis.pareto.hypervolume`.

    Example:
      >>> import matplotlib
      >>> matplotlib.use("Agg")
      >>> from mtl_optax.analysis import plots
      >>> ax = plots.pareto_front([[1.0, 3.0], [2.0, 1.0], [2.5, 2.0]], ["a", "b"])
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('loss of a', 'loss of b')
    """
    values = drawing.array_of("pareto_front: losses", losses, "[N, T]")
    num_tasks = values.shape[1]
    if num_tasks not in (2, 3):
        raise ValueError(
            f"pareto_front draws two or three losses; got {num_tasks}. Draw pairs of "
            "columns instead, losses[:, [0, 2]]."
        )
    names = drawing.names_of("pareto_front", names, num_tasks)
    ax = drawing.axes_of(ax, "3d" if num_tasks == 3 else None)
    if num_tasks == 3 and ax.name != "3d":
        raise ValueError(
            "pareto_front: three losses need axes made with projection='3d'; leave ax "
            "out, or give two columns of the losses."
        )
    kept = np.asarray(pareto_mask(values))
    front = values[kept]
    style: Any = {"edgecolors": color, "linewidths": 1.2}
    ax.scatter(*front.T, facecolors=color, label=label, **style)
    ax.scatter(*values[~kept].T, facecolors="none", **style)
    if num_tasks == 2:
        across, down = front[np.lexsort(front.T[::-1])].T
        ax.step(across, down, where="post", color=color, lw=1, alpha=0.6)
    setters = ax.set_xlabel, ax.set_ylabel, getattr(ax, "set_zlabel", None)
    for setter, name in zip(setters, names, strict=False):
        setter(f"loss of {name}")
    if label is not None:
        ax.legend()
    return ax


def task_weights(
    weights: Any, names: Names = None, steps: Any = None, *, ax: Any = None
) -> "Axes":
    """The weight of each task over training.

    Args:
      weights: `[N, T]`, :func:`mtl_optax.task_weights` of each recorded step.
      names: of the T tasks; None numbers them.
      steps: `[N]`, when they were recorded; None counts them.
      ax: as in :func:`conflict_matrix`.

    Returns:
      The axes, with one line a task.

    Raises:
      ImportError: without Matplotlib.
      ValueError: for other shapes, or another number of names.

    When not to use it: to compare methods whose weights have other scales; divide each
    row by its sum first.

    Example:
      >>> import matplotlib
      >>> matplotlib.use("Agg")
      >>> from mtl_optax.analysis import plots
      >>> ax = plots.task_weights([[0.5, 0.5], [0.6, 0.4]], ["lm", "aux"])
      >>> [line.get_label() for line in ax.lines]
      ['lm', 'aux']
    """
    return _lines("task_weights", weights, names, steps, "weight of the task", ax)


def losses(
    losses: Any,
    names: Names = None,
    steps: Any = None,
    *,
    log: bool = True,
    ax: Any = None,
) -> "Axes":
    """The loss of each task over training.

    Args:
      losses: `[N, T]`, as the task-gradient functions return them at each step.
      names: of the T tasks; None numbers them.
      steps: `[N]`, when they were recorded; None counts them.
      log: whether the axis is logarithmic, on which losses of unlike scales can be read
        together; False where a loss may be negative.
      ax: as in :func:`conflict_matrix`.

    Returns:
      The axes, with one line a task.

    Raises:
      ImportError: without Matplotlib.
      ValueError: for other shapes, or another number of names.

    When not to use it: to decide between methods by training losses alone.

    Example:
      >>> import matplotlib
      >>> matplotlib.use("Agg")
      >>> from mtl_optax.analysis import plots
      >>> ax = plots.losses([[2.0, 900.0], [1.0, 700.0]], steps=[0, 100])
      >>> [line.get_label() for line in ax.lines], ax.get_yscale()
      (['task 0', 'task 1'], 'log')
    """
    ax = _lines("losses", losses, names, steps, "loss", ax)
    if log:
        ax.set_yscale("log")
    return ax


def _lines(
    caller: str, values: Any, names: Names, steps: Any, label: str, ax: Any
) -> Any:
    values = drawing.array_of(f"{caller}: the values", values, "[N, T]")
    names = drawing.names_of(caller, names, values.shape[1])
    steps = drawing.steps_of(caller, steps, len(values))
    ax = drawing.axes_of(ax)
    for name, column, (color, line) in zip(
        names, values.T, drawing.looks(), strict=False
    ):
        ax.plot(steps, column, color=color, linestyle=line, label=name)
    ax.set(xlabel="step", ylabel=label)
    ax.legend()
    return ax
