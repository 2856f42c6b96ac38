"""Vectors `[T]` beside arrays with a leading task axis, `[T, ...]`."""

import typing
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# What a field of a state is annotated with that belongs to tasks, for `resize_tasks`:
# arrays with one row a task, or one for each pair; numbers that are indices of tasks;
# bools that are true for a fixed number of them; a dict with an entry for each task, by
# its name or its index.
TaskRows = Annotated[jax.Array, "[T, ...]"]
TaskTree = Annotated[Any, "[T, ...]"]
TaskPairs = Annotated[jax.Array, "[T, T, ...]"]
TaskIndices = Annotated[jax.Array, "[T] of indices"]
TaskTurns = Annotated[jax.Array, "[T] of turns"]
ByTask = Annotated[Any, "by task"]
_MARKS = "[T, ...]", "[T, T, ...]", "[T] of indices", "[T] of turns", "by task"


def mark_of(node: Any, field: str) -> str | None:
    """How the field of a state belongs to tasks; None if it does not say."""
    hint = getattr(type(node), "__annotations__", {}).get(field)
    for part in (hint, *typing.get_args(hint)):
        for mark in getattr(part, "__metadata__", ()):
            if mark in _MARKS:
                return str(mark)
    return None


def lead(vector: jax.Array, like: jax.Array) -> jax.Array:
    """A vector `[T]` shaped to multiply or mask an array `[T, ...]`."""
    return vector.reshape(vector.shape + (1,) * (like.ndim - 1))


def where_active(active: jax.Array, new: Any, old: Any) -> Any:
    """State with leaves `[T, ...]`: the new one at active tasks, else the old one."""
    return jax.tree.map(lambda n, o: jnp.where(lead(active, n), n, o), new, old)


def over_tasks(
    values: jax.Array, tasks: tuple[int, ...], num_tasks: int, fill: float = 0
) -> jax.Array:
    """`[C]` or `[C, C]` of some tasks among all T; `fill` where there are none."""
    known = np.isin(np.arange(num_tasks), tasks)
    if known.all():
        return values
    mask = known if values.ndim == 1 else known[:, None] & known[None, :]
    if len(tasks) == 1:
        return jnp.where(mask, values.reshape(()), fill)
    places = np.searchsorted(tasks, np.arange(num_tasks)).clip(0, len(tasks) - 1)
    values = values[places] if values.ndim == 1 else values[places][:, places]
    return jnp.where(mask, values, fill)


def rows_of_all(rows: jax.Array, tasks: tuple[int, ...], num_tasks: int) -> jax.Array:
    """`[T, ...]` from the rows `[C, ...]` of some tasks; those of the others are 0."""
    if len(tasks) == num_tasks:
        return rows
    zero = jnp.zeros_like(rows[0])
    known = dict(zip(tasks, rows, strict=True))
    return jnp.stack([known.get(task, zero) for task in range(num_tasks)])


def mix_tasks(
    weights: jax.Array, rows: jax.Array, active: jax.Array | None
) -> jax.Array:
    """Sums over tasks of `weights` `[T, ...]` times `rows` `[T, *param]`, masked.

    `[..., *param]`, in the dtype of the weights.
    """
    if active is not None:
        mask = lax.broadcast_in_dim(active, rows.shape, (0,))
        rows = jnp.where(mask, rows, 0)
    return lax.dot_general(
        weights,
        rows,
        (((0,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=weights.dtype,
    )


def along_rows(rows: jax.Array, direction: jax.Array) -> jax.Array:
    """Inner products `[T]` of rows `[T, *param]` with an array `[*param]`."""
    wide = jnp.result_type(float)
    terms = rows.astype(wide) * direction.astype(wide)[None]
    return jnp.sum(terms, axis=tuple(range(1, rows.ndim)))
