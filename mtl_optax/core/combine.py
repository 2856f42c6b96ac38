"""The second pass over the task gradients: their weighted sum, leaf by leaf."""

import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.lazy import LazyTaskGrads
from mtl_optax.core.task_rows import LeafRows, leaf_rows
from mtl_optax.core.trees.task_axis import mix_tasks

# Up to here the weighted sum is written out, so that XLA fuses it into the optimiser;
# above, the fused kernel would read T streams again for every output.
_UNROLLED = 4


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
        return mix_tasks(weights, leaf, active).astype(leaf.dtype)
    terms = []
    for t in range(num_tasks):
        row = leaf[t].astype(weights.dtype)
        if active is not None:
            row = jnp.where(active[t], row, 0)
        terms.append(weights[t] * row)
    return reduce(operator.add, terms).astype(leaf[0].dtype)
