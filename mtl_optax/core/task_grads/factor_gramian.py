"""Inner products of matrices X' D_t from X and D_t, without the matrices.

    K_ts = <X' D_t, X' D_s> = <D_t, (X X') D_s>

summed over e pairs side by side, X `[e, R, m]` and D `[T, e, R, n]`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_optax.core.task_grads.leaf_products import columns, on_one_cpu, over_slices

# Tasks whose (X X') D_t are there at once on a CPU.
_AT_ONCE = 8
_ROWS = 64  # of X that are copied at once


def row_gramian(
    x: jax.Array,
    d: jax.Array,
    of_x: jax.Array,
    of_d: jax.Array,
    axis_name: Any = None,
) -> jax.Array:
    """K `[T, T]` of gradients over their sizes, `[]` for X times `[T]` for D.

    With `axis_name` that of means over it, where each device has rows of its own.
    """
    x, d = (part.astype(of_d.dtype) for part in (x, d))
    every_x, every_d = x, d
    if axis_name is not None:
        every_x = lax.all_gather(x, axis_name, axis=1, tiled=True)
        every_d = lax.all_gather(d, axis_name, axis=2, tiled=True)
    each = (x, d.swapaxes(0, 1), every_x, every_d.swapaxes(0, 1))
    if not on_one_cpu():
        gramian = jnp.sum(jax.vmap(partial(_at_once, of_x, of_d))(*each), axis=0)
    elif x.shape[0] == 1:
        gramian = _in_chunks(of_x, of_d, *(part[0] for part in each))
    else:
        every = lax.map(lambda parts: _in_chunks(of_x, of_d, *parts), each)
        gramian = jnp.sum(every, axis=0)
    gramian = gramian / of_d[None, :]
    if axis_name is not None:
        gramian = lax.psum(gramian, axis_name) / lax.axis_size(axis_name) ** 2
    return (gramian + gramian.T) / 2


# Both give <D_t, (X X') D_s> over the size of t, `[T, T]`: between the two divisions,
# by one size each, numbers stay in range.


def _at_once(
    of_x: jax.Array,
    of_d: jax.Array,
    x: jax.Array,
    d: jax.Array,
    every_x: jax.Array,
    every_d: jax.Array,
) -> jax.Array:
    among = dot(x / of_x, every_x, ((1,), (1,))) / of_x  # [R, all R]
    seen = dot(every_d, among, ((1,), (1,)))  # [T, n, R]
    return dot(seen / of_d[:, None, None], d, ((1, 2), (2, 1)))


def _in_chunks(
    of_x: jax.Array,
    of_d: jax.Array,
    x: jax.Array,
    d: jax.Array,
    every_x: jax.Array,
    every_d: jax.Array,
) -> jax.Array:
    # All (X X') D_t at once would be one more copy of D.
    tasks, size = d.shape[0], d[0].size

    def products_of(row: jax.Array) -> jax.Array:
        return dot(every_x, row / of_x, ((1,), (0,))) / of_x

    among = lax.map(products_of, x, batch_size=_ROWS)
    flat = d.reshape(tasks, size)
    chunks = -(-tasks // max(1, min(_AT_ONCE, tasks // 2)))
    at_once = -(-tasks // chunks)
    starts = [min(i * at_once, tasks - at_once) for i in range(chunks)]

    def some_rows(start: Any) -> jax.Array:
        # One product a task: of a stack of tasks XLA would make a copy, rows first.
        seen = [
            dot(among, task, ((1,), (0,))).reshape(size)
            for task in lax.dynamic_slice_in_dim(every_d, start, at_once)
        ]
        of_some = lax.dynamic_slice_in_dim(of_d, start, at_once)[:, None]

        def products(first: Any, size: int) -> jax.Array:
            some = jnp.stack([columns(row, first, size) for row in seen]) / of_some
            return dot(some, columns(flat, first, size), ((1,), (1,)))

        return over_slices(products, size)

    if chunks == 1:
        return some_rows(0)
    rows = lax.map(some_rows, jnp.array(starts)).reshape(-1, tasks)
    order = [start + i for start in starts for i in range(at_once)]
    return rows[np.unique(order, return_index=True)[1]]


def dot(left: jax.Array, right: jax.Array, axes: Any) -> jax.Array:
    """The product in full precision, float32 or wider."""
    return lax.dot_general(
        left,
        right,
        (axes, ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.result_type(float),
    )
