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

# Tasks whose (X X') D_t are there at once on a CPU.
_AT_ONCE = 8


def row_gramian(x: jax.Array, d: jax.Array, axis_name: Any = None) -> jax.Array:
    """K `[T, T]`; with `axis_name` that of means over it, each device with its rows."""
    x, d = (part.astype(jnp.result_type(float)) for part in (x, d))
    every_x, every_d = of_all_devices(x, d, axis_name)
    each = (x, d.swapaxes(0, 1), every_x, every_d.swapaxes(0, 1))
    if not on_one_cpu():
        gramian = jnp.sum(jax.vmap(_at_once)(*each), axis=0)
    elif x.shape[0] == 1:
        gramian = _in_chunks(*(part[0] for part in each))
    else:
        gramian = jnp.sum(lax.map(lambda parts: _in_chunks(*parts), each), axis=0)
    if axis_name is not None:
        gramian = lax.psum(gramian, axis_name) / lax.axis_size(axis_name) ** 2
    return (gramian + gramian.T) / 2


def _at_once(
    x: jax.Array, d: jax.Array, every_x: jax.Array, every_d: jax.Array
) -> jax.Array:
    among = dot(x, every_x, ((1,), (1,)))  # [R, all R]
    seen = dot(every_d, among, ((1,), (1,)))  # [T, n, R]
    return dot(d, seen, ((1, 2), (2, 1)))


def _in_chunks(
    x: jax.Array, d: jax.Array, every_x: jax.Array, every_d: jax.Array
) -> jax.Array:
    # All (X X') D_t at once would be one more copy of D.
    tasks, size = d.shape[0], d[0].size
    among = dot(x, every_x, ((1,), (1,)))
    flat = d.reshape(tasks, size)
    chunks = -(-tasks // _AT_ONCE)
    at_once = -(-tasks // chunks)
    starts = [min(i * at_once, tasks - at_once) for i in range(chunks)]

    def some_rows(start: Any) -> jax.Array:
        some = lax.dynamic_slice_in_dim(every_d, start, at_once)
        seen = jnp.matmul(among[None], some, precision=lax.Precision.HIGHEST)
        seen = seen.reshape(at_once, size)

        def products(first: Any, size: int) -> jax.Array:
            pair = columns(seen, first, size), columns(flat, first, size)
            return dot(*pair, ((1,), (1,)))

        return over_slices(products, size)

    if chunks == 1:
        return some_rows(0)
    rows = lax.map(some_rows, jnp.array(starts)).reshape(-1, tasks)
    order = [start + i for start in starts for i in range(at_once)]
    return rows[np.unique(order, return_index=True)[1]]


def normal_row(
    task: jax.Array, x: jax.Array, d: jax.Array, sizes: jax.Array
) -> jax.Array:
    """Row of one task `[T]` in the Gramian of `G_t / sizes_t`, one pair at a time.

    For numbers out of range: this is seldom run, and should cost no memory.
    """
    x, d = (part.astype(sizes.dtype) for part in (x, d))
    of_x = power_of_two(jnp.max(jnp.abs(x), initial=0))
    few_rows = x.shape[1] < x.shape[2]
    matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)

    def part(task: jax.Array) -> jax.Array:
        return d[task] / (sizes[task] / of_x)

    def with_other(other: jax.Array) -> jax.Array:
        ours, theirs, of_one = part(task), part(other), x / of_x
        if few_rows:
            return jnp.sum(matmul(matmul(of_one, of_one.mT), ours) * theirs)
        return jnp.sum(matmul(of_one.mT, ours) * matmul(of_one.mT, theirs))

    return lax.map(with_other, jnp.arange(d.shape[0]))


def of_all_devices(
    x: jax.Array, d: jax.Array, axis_name: Any
) -> tuple[jax.Array, jax.Array]:
    """The rows of every device, one after the other."""
    if axis_name is None:
        return x, d
    return (
        lax.all_gather(x, axis_name, axis=1, tiled=True),
        lax.all_gather(d, axis_name, axis=2, tiled=True),
    )


def dot(left: jax.Array, right: jax.Array, axes: Any) -> jax.Array:
    """The product in full precision, float32 or wider."""
    return lax.dot_general(
        left,
        right,
        (axes, ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.result_type(float),
    )
