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

from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_products import columns, on_one_cpu, over_slices
from mtl_optax.core.task_grads.leaf_values import largest_of

# Tasks whose (X X') D_t are there at once on a CPU.
_AT_ONCE = 8
_ROWS = 64  # of X that are copied at once


def row_gramian(
    x: jax.Array, d: jax.Array, axis_name: Any = None
) -> tuple[jax.Array, jax.Array]:
    """K `[T, T]` of gradients over their sizes, and these `[T]`, powers of two.

    With `axis_name` those of means over it, where each device has rows of its own.
    """
    kind = jnp.result_type(float)
    x, d = x.astype(kind), d.astype(kind)
    # By rows, for those that no task reads may hold anything, however huge: padding.
    of_rows = power_of_two(largest_of(x, 2))
    largest = largest_of(d * of_rows[None, :, :, None])
    every_x, every_d = x, d
    if axis_name is not None:
        largest = lax.pmax(largest, axis_name)
        every_x = lax.all_gather(x, axis_name, axis=1, tiled=True)
        every_d = lax.all_gather(d, axis_name, axis=2, tiled=True)
    sizes = power_of_two(largest)
    form = partial(_in_chunks if on_one_cpu() else _at_once, sizes)
    each = (of_rows, x, d.swapaxes(0, 1), every_x, every_d.swapaxes(0, 1))
    if not on_one_cpu():
        gramian = jnp.sum(jax.vmap(form)(*each), axis=0)
    elif x.shape[0] == 1:
        gramian = form(*(part[0] for part in each))
    else:
        gramian = jnp.sum(lax.map(lambda parts: form(*parts), each), axis=0)
    gramian = gramian / sizes[None, :]
    if axis_name is not None:
        gramian = lax.psum(gramian, axis_name) / lax.axis_size(axis_name) ** 2
    return (gramian + gramian.T) / 2, sizes


# Both give <D_t, (X X') D_s> over the size of s, `[T, T]`, and every number on the way
# is about as large as one of a gradient, or of a row of X: one of both has been divided
# by its size.


def _at_once(
    sizes: jax.Array,
    of_rows: jax.Array,
    x: jax.Array,
    d: jax.Array,
    every_x: jax.Array,
    every_d: jax.Array,
) -> jax.Array:
    among = dot(x / of_rows[:, None], every_x, ((1,), (1,)))  # [R, all R]
    seen = dot(every_d, among, ((1,), (1,)))  # [T, n, R]
    seen = seen / sizes[:, None, None] * of_rows[None, None, :]
    return dot(seen, d, ((1, 2), (2, 1)))


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


def dot(left: jax.Array, right: jax.Array, axes: Any) -> jax.Array:
    """The product in full precision, float32 or wider."""
    return lax.dot_general(
        left,
        right,
        (axes, ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.result_type(float),
    )
