"""The two passes over the task gradients: their Gramian, and their weighted sum.

Both work leaf by leaf and never reshape across a sharded axis or concatenate, so
parameters that are sharded over a mesh cost one all-reduce of `[T, T]` and nothing of
a gradient's size. A leaf is either an array `[T, *param]` or, where task gradients were
pulled back one by one, a tuple of T arrays `[*param]` (no stack is ever built).
"""

import math
import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mtl_optax.core.lazy import LazyTaskGrads, TaskRows, as_stacked

LeafRows = jax.Array | tuple[jax.Array, ...]

# Columns that the one-device CPU form reads at once: [T, 4096] stays in cache.
_SLICE = 4096
# Up to here the weighted sum is written out, so that XLA fuses it into the optimiser;
# above, the fused kernel would read T streams again for every output.
_UNROLLED = 4
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


def combine(
    task_gradients: Any, weights: jax.Array, active: jax.Array | None = None
) -> optax.Updates:
    r"""Weighted sum of task gradients, leaf by leaf.

    .. math:: d = \sum_t w_t \, g_t

    Args:
      task_gradients: tree of stacked gradients, each leaf `[T, *param.shape]`, or
        :class:`mtl_optax.LazyTaskGrads`.
      weights: `[T]`, one weight a task.
      active: `[T]` bool; gradients of inactive tasks are masked out, so that a NaN
        there does no harm. (A lazy sum is one backward pass, which cannot mask: there
        the weight 0 of an inactive task multiplies its NaN.)

    Returns:
      Tree of `[*param.shape]` leaves, summed in float32 and cast back to the dtype of
      each incoming leaf.

    Raises:
      ValueError: if `weights` is not one weight a task.

    Cost: one read of the gradients; one backward pass for lazy ones.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> mtl.combine(
      ...     {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}, jnp.array([0.5, 2.0])
      ... )
      {'w': Array([-1.5,  2. ], dtype=float32)}
    """
    weights = jnp.asarray(weights)
    if isinstance(task_gradients, LazyTaskGrads):
        return task_gradients.pull(weights)
    leaves, treedef = leaf_rows(task_gradients)
    sums = [_weighted_sum(leaf, weights, active) for leaf in leaves]
    return jax.tree.unflatten(treedef, sums)


def combine_per_leaf(
    task_gradients: Any, weights: jax.Array, active: jax.Array | None = None
) -> optax.Updates:
    """Like `combine`, but leaf l has weights of its own, `weights[l]` of `[L, T]`."""
    leaves, treedef = leaf_rows(task_gradients)
    sums = [_weighted_sum(leaf, weights[i], active) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(treedef, sums)


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
        return _inner_products(left, right, 1, _replicated(left))

    return jax.tree.leaves(jax.tree.map(leaf, stacked, other))


def leaf_rows(task_gradients: Any) -> tuple[list[LeafRows], Any]:
    """The leaves, each `[T, *param]` or a tuple of T arrays, and their tree."""
    if isinstance(task_gradients, TaskRows):
        per_task = [jax.tree.leaves(tree) for tree in task_gradients.trees]
        treedef = jax.tree.structure(task_gradients.trees[0])
        return list(zip(*per_task, strict=True)), treedef
    leaves, treedef = jax.tree.flatten(task_gradients)
    return [jnp.asarray(leaf) for leaf in leaves], treedef


def squared_norm(tree: optax.Updates) -> jax.Array:
    """Sum of squares over all leaves, in the precision of T-sized numbers."""
    wide = [leaf.astype(jnp.result_type(float)) for leaf in jax.tree.leaves(tree)]
    return reduce(operator.add, [jnp.sum(leaf * leaf) for leaf in wide])


def lead(vector: jax.Array, like: jax.Array) -> jax.Array:
    """A vector `[T]` shaped to multiply or mask an array `[T, ...]`."""
    return vector.reshape(vector.shape + (1,) * (like.ndim - 1))


def where_active(active: jax.Array, new: Any, old: Any) -> Any:
    """State with leaves `[T, ...]`: the new one at active tasks, else the old one."""
    return jax.tree.map(lambda n, o: jnp.where(lead(active, n), n, o), new, old)


def replicated_zeros(shape: tuple[int, ...], params: optax.Params) -> jax.Array:
    """T-sized state, replicated over the mesh of `params` if it is an explicit one."""
    sharding = next(filter(None, map(_replicated, jax.tree.leaves(params))), None)
    return jnp.zeros(shape, jnp.result_type(float), device=sharding)


def _gramian_of_leaf(leaf: LeafRows) -> jax.Array:
    replicated = _replicated(leaf if isinstance(leaf, jax.Array) else leaf[0])
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if one_cpu and replicated is None:
        return _sliced_gramian(leaf)
    return _contracted_gramian(leaf, replicated)


def _contracted_gramian(
    leaf: LeafRows, replicated: NamedSharding | None = None
) -> jax.Array:
    # Contracting all parameter axes at once, without a reshape, is what keeps a
    # sharded leaf where it is: the mesh then adds up [T, T] only.
    if isinstance(leaf, tuple) and len(leaf) <= _PAIRED:
        return _paired_gramian(leaf, replicated)
    stacked = leaf if isinstance(leaf, jax.Array) else jnp.stack(leaf)
    return _inner_products(stacked, stacked, 1, replicated)


def _paired_gramian(
    rows: tuple[jax.Array, ...], replicated: NamedSharding | None
) -> jax.Array:
    # Pair by pair, rows that were pulled back one by one are never stacked.
    upper = {
        (t, s): _inner_products(rows[t], rows[s], 0, replicated)
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
    whole, rest = divmod(size, _SLICE)
    total = _slice_gramian(flat, whole * _SLICE, rest)
    if whole == 0:
        return total

    def add_slice(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + _slice_gramian(flat, i * _SLICE, _SLICE)

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


def _weighted_sum(
    leaf: LeafRows, weights: jax.Array, active: jax.Array | None
) -> jax.Array:
    num_tasks = leaf.shape[0] if isinstance(leaf, jax.Array) else len(leaf)
    if weights.shape != (num_tasks,):
        raise ValueError(
            f"combine: weights must have one entry a task, shape ({num_tasks},); got "
            f"shape {weights.shape}."
        )
    if num_tasks > _UNROLLED and isinstance(leaf, jax.Array):
        return _tensordot(leaf, weights, active)
    terms = []
    for t in range(num_tasks):
        row = leaf[t].astype(weights.dtype)
        if active is not None:
            row = jnp.where(active[t], row, 0)
        terms.append(weights[t] * row)
    return reduce(operator.add, terms).astype(leaf[0].dtype)


def _tensordot(
    leaf: jax.Array, weights: jax.Array, active: jax.Array | None
) -> jax.Array:
    if active is not None:
        mask = lax.broadcast_in_dim(active, leaf.shape, (0,))
        leaf = jnp.where(mask, leaf, 0)
    total = lax.dot_general(
        weights,
        leaf,
        (((0,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=weights.dtype,
    )
    return total.astype(leaf.dtype)


def _replicated(leaf: Any) -> NamedSharding | None:
    """A replicated sharding on the leaf's mesh if its axes are Explicit, else None."""
    mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
    if mesh is None or mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, PartitionSpec())
