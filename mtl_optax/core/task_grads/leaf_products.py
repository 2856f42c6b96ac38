"""The two passes over one leaf of T gradients: inner products, and weighted sums.

A leaf is an array `[T, *param]` or a tuple of T arrays `[*param]`, rows that were
pulled back one by one. Nothing reshapes across a sharded axis or concatenates, so
parameters that are sharded over a mesh cost one all-reduce of `[T, T]` and nothing of a
gradient's size.
"""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding

from mtl_optax.core.trees.leaves import sum_by_block
from mtl_optax.core.trees.replicated import replicated
from mtl_optax.core.trees.task_axis import mix_tasks

LeafRows = jax.Array | tuple[jax.Array, ...]

# Columns that the one-device CPU form reads at once: [T, 4096] stays in cache. Of many
# rows more: there the product of matrices is what takes the time.
SLICE = 4096
_MANY, _LONG_SLICE = 16, 4 * SLICE
# Numbers of a leaf that one product takes without slices, and shares among cores.
_WHOLE = 2**20
# Up to here rows are multiplied number by number, 2-5 times as fast as by a product.
_FEW = 3
# Up to here separate rows are compared pair by pair; above, one leaf is stacked.
PAIRED = 8
# Up to here the weighted sum is written out, so that XLA fuses it into the optimiser;
# above, the fused kernel would read T streams again for every output.
UNROLLED = 4


def row_like(leaf: LeafRows) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one row."""
    if isinstance(leaf, tuple):
        return jax.ShapeDtypeStruct(leaf[0].shape, leaf[0].dtype)
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def stack_rows(leaf: LeafRows) -> jax.Array:
    """The leaf as one array `[T, *param]`."""
    return jnp.stack(leaf) if isinstance(leaf, tuple) else leaf


def weighted_sum(
    leaf: LeafRows, weights: jax.Array, active: jax.Array | None, dtype: Any = None
) -> jax.Array:
    """`sum_t w_t g_t` `[*param]`, summed in the dtype of `weights`; in the leaf's."""
    num_tasks = weights.shape[0]
    dtype = leaf[0].dtype if dtype is None else dtype
    if num_tasks > UNROLLED and not isinstance(leaf, tuple):
        return mix_tasks(weights, leaf, active).astype(dtype)
    terms = []
    for t in range(num_tasks):
        row = leaf[t].astype(weights.dtype)
        if active is not None:
            row = jnp.where(active[t], row, 0)
        terms.append(weights[t] * row)
    return reduce(operator.add, terms).astype(dtype)


def masked_gramian(gramian: jax.Array, active: jax.Array | None) -> jax.Array:
    """Inner products `[..., T, T]`, those with inactive tasks 0."""
    if active is None:
        return gramian
    return jnp.where(active[:, None] & active[None, :], gramian, 0)


def over_leaves(
    each: list[jax.Array], active: jax.Array | None, blocks: tuple[int, ...] | None
) -> jax.Array:
    """Sums of the leaves' inner products `[T, T]`: over all, or over each block's."""
    if blocks is None:
        return masked_gramian(reduce(operator.add, each), active)
    return masked_gramian(sum_by_block(each, blocks), active)


def leaf_products(left: jax.Array, right: jax.Array) -> jax.Array:
    """Inner products `[T, T]` of the rows of two stacks of one leaf."""
    return _inner_products(left, right, 1, replicated(left))


def leaf_gramian(leaf: LeafRows) -> jax.Array:
    """Inner products `[T, T]` of all pairs of rows, float32 or wider."""
    out = replicated(leaf[0] if isinstance(leaf, tuple) else leaf)
    sliced = out is None and on_one_cpu()
    form = _sliced_gramian if sliced else _contracted_gramian
    gramian = form(leaf, out)
    # A matrix product may round its two triangles differently.
    return (gramian + gramian.T) / 2


def on_one_cpu() -> bool:
    """Where slices pay, and nothing is spread over devices."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def _contracted_gramian(leaf: LeafRows, out: NamedSharding | None) -> jax.Array:
    # Contracting all parameter axes at once, without a reshape, is what keeps a
    # sharded leaf where it is: the mesh then adds up [T, T] only.
    if isinstance(leaf, tuple) and len(leaf) <= PAIRED:
        return _paired_gramian(leaf, out)
    stacked = stack_rows(leaf)
    return _inner_products(stacked, stacked, 1, out)


def _paired_gramian(
    rows: tuple[jax.Array, ...], out: NamedSharding | None
) -> jax.Array:
    # Pair by pair, rows that were pulled back one by one are never stacked.
    upper = {
        (t, s): _inner_products(rows[t], rows[s], 0, out)
        for t in range(len(rows))
        for s in range(t, len(rows))
    }
    return jnp.stack(
        [
            jnp.stack([upper[min(t, s), max(t, s)] for s in range(len(rows))])
            for t in range(len(rows))
        ]
    )


def _inner_products(
    left: jax.Array, right: jax.Array, first_axis: int, out: NamedSharding | None
) -> jax.Array:
    axes = tuple(range(first_axis, left.ndim))
    return lax.dot_general(
        left,
        right,
        ((axes, axes), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.result_type(float),
        out_sharding=out,
    )


@jax.jit
def _sliced_gramian(leaf: LeafRows, out: None) -> jax.Array:
    del out
    tasks, shape = len(leaf), row_like(leaf).shape
    size = math.prod(shape)

    def flatten(rows: jax.Array) -> jax.Array:
        return rows.reshape(*rows.shape[: rows.ndim - len(shape)], size)

    flat = jax.tree.map(flatten, leaf)

    def products(start: Any, size: int) -> jax.Array:
        among = stack_rows(jax.tree.map(lambda x: columns(x, start, size), flat))
        return _inner_products(among, among, 1, None)

    if tasks <= _FEW and _slices(size, SLICE)[0] > 1:
        return _gramian_of_few(flat, tasks, size)
    if tasks * size <= _WHOLE:
        return products(0, size)
    return over_slices(products, size, _LONG_SLICE if tasks >= _MANY else SLICE)


def _gramian_of_few(flat: LeafRows, tasks: int, size: int) -> jax.Array:
    """Products number by number, added up over slices; the sums of these at last."""
    pairs = [(t, s) for t in range(tasks) for s in range(t, tasks)]

    def row(task: int, start: Any, size: int) -> jax.Array:
        if isinstance(flat, tuple):
            found = columns(flat[task], start, size)
        else:  # of flat[task] XLA would make a copy
            found = lax.dynamic_slice(flat, (np.int32(task), start), (1, size))[0]
        return found.astype(jnp.result_type(float))

    def products(start: Any, size: int) -> list[jax.Array]:
        rows = [row(task, start, size) for task in range(tasks)]
        return [rows[t] * rows[s] for t, s in pairs]

    def add_slice(i: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        return jax.tree.map(operator.add, sums, products(i * width, width))

    count, width = _slices(size, SLICE)
    bounds, start = (np.int32(1), np.int32(count)), np.int32(count * width)
    sums = lax.fori_loop(*bounds, add_slice, products(np.int32(0), width))
    rest = products(start, size - count * width)
    both = zip(pairs, sums, rest, strict=True)
    found = {pair: jnp.sum(one) + jnp.sum(other) for pair, one, other in both}
    every = range(tasks)
    each = [found[min(t, s), max(t, s)] for t in every for s in every]
    return jnp.stack(each).reshape(tasks, tasks)


def over_slices(
    products: Callable[[Any, int], jax.Array], size: int, width: int = SLICE
) -> jax.Array:
    """The sum of `products(start, size)` over slices of about so many columns.

    XLA's CPU product of a long [10, 1e6] matrix with its transpose is 2 times slower
    than the same product taken slice by slice in cache.
    """
    count, width = _slices(size, width)
    if count == 1:
        return products(0, size)

    def add_slice(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + products(i * width, width)

    bounds = np.int32(0), np.int32(count)  # known ones have derivatives
    rest = products(count * width, size - count * width)
    return lax.fori_loop(*bounds, add_slice, rest)


def _slices(size: int, width: int) -> tuple[int, int]:
    """How many, and of how many columns; fewer than there are slices are left over."""
    count = max(1, round(size / width))
    return count, size // count


def columns(rows: jax.Array, start: Any, size: int) -> jax.Array:
    """Some columns of a matrix, or some entries of a vector."""
    return lax.dynamic_slice_in_dim(rows, start, size, axis=-1)
