"""Inner products of matrices X' D_t from X and D_t, without the matrices.

    K_ts = <X' D_t, X' D_s> = <D_t, (X X') D_s>

summed over e pairs side by side, X `[*e, *R, *m]` and D `[T, *e, *R, *n]`.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_products import columns, on_one_cpu, over_slices
from mtl_optax.core.task_grads.leaf_values import largest_of

# Tasks whose (X X') D_t are there at once on a CPU.
_AT_ONCE = 8
_ROWS = 64  # of X that are copied at once


def row_gramian(
    batch: int, rows: int, axis_name: Any, x: jax.Array, d: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """K `[T, T]` of gradients over their sizes, and these `[T]`, powers of two.

    With `axis_name` those of means over it, where each device has rows of its own.

    Args:
      batch: number of axes e.
      rows: number of axes of rows.
      axis_name: the mapped axis, or None.
      x: `[*e, *R, *m]`.
      d: `[T, *e, *R, *n]`.
    """
    kind, kept = jnp.result_type(float), batch + rows
    x, d = x.astype(kind), d.astype(kind)
    if on_one_cpu():
        many, few = (math.prod(x.shape[a:b]) for a, b in ((0, batch), (batch, kept)))
        x = x.reshape(many, few, math.prod(x.shape[kept:]))
        d = d.reshape(d.shape[0], many, few, math.prod(d.shape[kept + 1 :]))
        batch, rows, kept = 1, 1, 2
    # By rows, for those that no task reads may hold anything, however huge: padding.
    of_rows = power_of_two(largest_of(x, kept))
    largest = largest_of(d * lax.broadcast_in_dim(of_rows, d.shape, range(1, kept + 1)))
    every_x, every_d = x, d
    if axis_name is not None:
        largest = lax.pmax(largest, axis_name)
        every_x = lax.all_gather(x, axis_name, axis=batch, tiled=True)
        every_d = lax.all_gather(d, axis_name, axis=batch + 1, tiled=True)
    sizes = power_of_two(largest)
    each = (sizes, of_rows, x, d, every_x, every_d)
    form = _one_by_one if on_one_cpu() else _at_once
    gramian = form(batch, rows, *each) / sizes[None, :]
    if axis_name is not None:
        gramian = lax.psum(gramian, axis_name) / lax.axis_size(axis_name) ** 2
    return (gramian + gramian.T) / 2, sizes


# Both give <D_t, (X X') D_s> over the size of s, `[T, T]`, and every number on the way
# is about as large as one of a gradient, or of a row of X: one of both has been divided
# by its size.


def _at_once(
    batch: int,
    rows: int,
    sizes: jax.Array,
    of_rows: jax.Array,
    x: jax.Array,
    d: jax.Array,
    every_x: jax.Array,
    every_d: jax.Array,
) -> jax.Array:
    # No axis is merged with another, since any may be cut over a mesh.
    e, kept = tuple(range(batch)), batch + rows
    in_d = tuple(range(batch + 1, kept + 1))
    free = tuple(range(kept, x.ndim))
    ahead = lax.broadcast_in_dim(of_rows, x.shape, range(kept))
    among = dot(x / ahead, every_x, (free, free), (e, e))  # [*e, *R, *all R]
    of_all = tuple(range(kept, kept + rows))
    beside = tuple(i + 1 for i in e)
    seen = dot(every_d, among, (in_d, of_all), (beside, e))  # [*e, T, *n, *R]
    n = tuple(range(batch + 1, seen.ndim - rows))
    in_seen = tuple(range(seen.ndim - rows, seen.ndim))
    seen = seen / lax.broadcast_in_dim(sizes, seen.shape, (batch,))
    seen = seen * lax.broadcast_in_dim(of_rows, seen.shape, (*e, *in_seen))
    of_d = tuple(range(kept + 1, d.ndim))
    return dot(seen, d, ((*e, *n, *in_seen), (*beside, *of_d, *in_d)))


def _one_by_one(
    batch: int, rows: int, sizes: jax.Array, of_rows: jax.Array, *parts: jax.Array
) -> jax.Array:
    """The e products, from X `[e, R, m]` and D `[T, e, R, n]`."""
    del batch, rows
    x, d, every_x, every_d = parts
    each = (of_rows, x, d.swapaxes(0, 1), every_x, every_d.swapaxes(0, 1))
    form = partial(_in_chunks, sizes)
    if x.shape[0] == 1:
        return form(*(part[0] for part in each))
    return jnp.sum(lax.map(lambda parts: form(*parts), each), axis=0)


def _in_chunks(
    sizes: jax.Array,
    of_rows: jax.Array,
    x: jax.Array,
    d: jax.Array,
    every_x: jax.Array,
    every_d: jax.Array,
) -> jax.Array:
    # All (X X') D_t at once would be one more copy of D.
    tasks, size = d.shape[0], d[0].size

    def products_of(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        numbers, of_row = row
        return dot(every_x, numbers / of_row, ((1,), (0,)))

    among = lax.map(products_of, (x, of_rows), batch_size=_ROWS)
    flat = d.reshape(tasks, size)
    chunks = -(-tasks // max(1, min(_AT_ONCE, tasks // 2)))
    at_once = -(-tasks // chunks)
    starts = [min(i * at_once, tasks - at_once) for i in range(chunks)]

    def some_rows(start: Any) -> jax.Array:
        # One product a task: of a stack of tasks XLA would make a copy, rows first.
        some = lax.dynamic_slice_in_dim(every_d, start, at_once)
        of_some = lax.dynamic_slice_in_dim(sizes, start, at_once)
        seen = [
            (dot(among, one, ((1,), (0,))) / of_one * of_rows[:, None]).reshape(size)
            for one, of_one in zip(some, of_some, strict=True)
        ]

        def products(first: Any, size: int) -> jax.Array:
            some = jnp.stack([columns(row, first, size) for row in seen])
            return dot(some, columns(flat, first, size), ((1,), (1,)))

        return over_slices(products, size)

    if chunks == 1:
        return some_rows(0)
    rows = lax.map(some_rows, jnp.array(starts)).reshape(-1, tasks)
    order = [start + i for start in starts for i in range(at_once)]
    return rows[np.unique(order, return_index=True)[1]]


def dot(
    left: jax.Array, right: jax.Array, axes: Any, batch: Any = ((), ())
) -> jax.Array:
    """The product in full precision, float32 or wider."""
    return lax.dot_general(
        left,
        right,
        (axes, batch),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.result_type(float),
    )
