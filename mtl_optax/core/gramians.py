"""The first pass over the task gradients: inner products of all pairs.

It works leaf by leaf and never reshapes across a sharded axis or concatenates, so
parameters that are sharded over a mesh cost one all-reduce of `[T, T]` and nothing of
a gradient's size.
"""

import math
import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding

from mtl_optax.core.lazy import LazyTaskGrads, as_stacked
from mtl_optax.core.task_rows import LeafRows, leaf_rows
from mtl_optax.core.trees.replicated import replicated
from mtl_optax.core.trees.task_axis import mix_tasks

# Columns that the one-device CPU form reads at once: [T, 4096] stays in cache.
SLICE = 4096
# Up to here separate rows are compared pair by pair; above, one leaf is stacked.
_PAIRED = 8


def gramian(task_gradients: Any, other: Any = None) -> jax.Array:
    r"""Inner products of all pairs of task gradients.

    .. math:: K_{ts} = \sum_{\text{leaves}} \langle g_t, h_s \rangle

    Args:
      task_gradients: tree of stacked gradients g, each leaf `[T, *param.shape]`, or
        :class:`mtl_optax.LazyTaskGrads`.
      other: the gradients h, in the same form; None for g itself. With gradients on
        another batch this is the `cross_gramian` of `modo` and `sdmgrad`.

    Returns:
      The matrix `[T, T]`, symmetric without `other`, float32 (float64 under x64)
      whatever the dtype of the gradients is, accumulated with full-precision products.

    Raises:
      ValueError: if the tree has no leaves, so that T is unknown; if both trees differ.

    Cost: one read of the gradients; lazy ones are pulled back first (T backward
    passes, T trees in memory).

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> mtl.gramian({"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])})
      Array([[ 1., -1.],
             [-1.,  2.]], dtype=float32)
    """
    if other is not None:
        gramians = _cross_gramians(as_stacked(task_gradients), as_stacked(other))
    else:
        lazy = isinstance(task_gradients, LazyTaskGrads)
        gramians = leaf_gramians(task_gradients.rows() if lazy else task_gradients)
    if not gramians:
        raise ValueError("gramian: the tree of task gradients has no leaves.")
    return reduce(operator.add, gramians)


def rotated_gramian(
    task_gradients: Any, basis: jax.Array, active: jax.Array | None
) -> jax.Array:
    """The Gramian of `basis' J`: `[T, T]`, of combinations of computed gradients.

    Each leaf is combined in float32 or wider before any product is taken, so that a
    combination that nearly cancels keeps the digits that `basis' (J J') basis` lost.
    """
    leaves, _ = leaf_rows(task_gradients)
    stacks = (jnp.stack(x) if isinstance(x, tuple) else x for x in leaves)
    return reduce(
        operator.add, leaf_gramians([mix_tasks(basis, x, active) for x in stacks])
    )


def leaf_gramians(task_gradients: Any) -> list[jax.Array]:
    """The Gramian `[T, T]` of each leaf."""
    leaves, _ = leaf_rows(task_gradients)
    gramians = [_gramian_of_leaf(leaf) for leaf in leaves]
    # A matrix product may round its two triangles differently.
    return [(gram + gram.T) / 2 for gram in gramians]


def _cross_gramians(stacked: Any, other: Any) -> list[jax.Array]:
    """`J_l H_l'` `[T, T]` of each leaf l of two stacks."""

    def leaf(left: Any, right: Any) -> jax.Array:
        left, right = jnp.asarray(left), jnp.asarray(right)
        return _inner_products(left, right, 1, replicated(left))

    return jax.tree.leaves(jax.tree.map(leaf, stacked, other))


def _gramian_of_leaf(leaf: LeafRows) -> jax.Array:
    out = replicated(leaf if isinstance(leaf, jax.Array) else leaf[0])
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if one_cpu and out is None:
        return _sliced_gramian(leaf)
    return _contracted_gramian(leaf, out)


def _contracted_gramian(leaf: LeafRows, out: NamedSharding | None = None) -> jax.Array:
    # Contracting all parameter axes at once, without a reshape, is what keeps a
    # sharded leaf where it is: the mesh then adds up [T, T] only.
    if isinstance(leaf, tuple) and len(leaf) <= _PAIRED:
        return _paired_gramian(leaf, out)
    stacked = leaf if isinstance(leaf, jax.Array) else jnp.stack(leaf)
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
def _sliced_gramian(leaf: LeafRows) -> jax.Array:
    # XLA's CPU product of a [2, 1e6] matrix with its transpose is 2-3 times slower
    # than the same product taken slice by slice in cache.
    size = math.prod(leaf.shape[1:] if isinstance(leaf, jax.Array) else leaf[0].shape)
    flat = (
        leaf.reshape(leaf.shape[0], size)
        if isinstance(leaf, jax.Array)
        else tuple(row.reshape(size) for row in leaf)
    )
    whole, rest = divmod(size, SLICE)
    total = _slice_gramian(flat, whole * SLICE, rest)
    if whole == 0:
        return total

    def add_slice(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + _slice_gramian(flat, i * SLICE, SLICE)

    bounds = jnp.int32(0), jnp.int32(whole)
    return lax.fori_loop(*bounds, add_slice, total)


def _slice_gramian(flat: LeafRows, start: Any, size: int) -> jax.Array:
    if isinstance(flat, jax.Array):
        columns = lax.dynamic_slice_in_dim(flat, start, size, axis=1)
    else:
        columns = jnp.stack(
            [lax.dynamic_slice_in_dim(row, start, size) for row in flat]
        )
    return _inner_products(columns, columns, 1, None)
