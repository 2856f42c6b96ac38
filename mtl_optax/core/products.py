"""Inner products and weighted sums of task gradients, in whatever form they come."""

import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.names import by_position
from mtl_optax.core.task_grads.as_task_grads import unchecked
from mtl_optax.core.task_grads.leaf_products import leaf_products


def gramian(task_gradients: Any, other: Any = None) -> jax.Array:
    r"""Inner products of all pairs of task gradients.

    .. math:: K_{ts} = \sum_{\text{leaves}} \langle g_t, h_s \rangle

    Args:
      task_gradients: tree of stacked gradients g, each leaf `[T, *param.shape]`, or
        :class:`mtl_optax.LazyTaskGrads`.
      other: the gradients h, in the same form; None for g itself. With gradients on
        another batch this is the `gramian=` of `modo` and `sdmgrad`.

    Returns:
      The matrix `[T, T]`, symmetric without `other`, float32 (float64 under x64)
      whatever the dtype of the gradients is, accumulated with full-precision products.
      Of lazy gradients at features, the products at the parameters.

    Raises:
      ValueError: if the tree has no leaves, so that T is unknown; if both trees differ.

    Cost: one read of the gradients; for lazy ones at most T backward passes (as in
    :func:`lazy_task_grads`), with `other` T for each and both stacks.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> mtl.gramian({"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])})
      Array([[ 1., -1.],
             [-1.,  2.]], dtype=float32)
    """
    gradients = unchecked(task_gradients)
    if not jax.tree.leaves(gradients.like()):
        raise ValueError("gramian: the tree of task gradients has no leaves.")
    if other is None:
        return gradients.at_parameters().gramian()
    left, right = gradients.stack(), unchecked(other).stack()
    each = jax.tree.map(leaf_products, left, right)
    return reduce(operator.add, jax.tree.leaves(each))


def combine(task_gradients: Any, weights: Any, active: Any = None) -> optax.Updates:
    r"""Weighted sum of task gradients, leaf by leaf.

    .. math:: d = \sum_t w_t \, g_t

    Args:
      task_gradients: tree of stacked gradients, each leaf `[T, *param.shape]`, or
        :class:`mtl_optax.LazyTaskGrads`.
      weights: one weight a task, `[T]` in sorted order of names or a dict by name.
      active: `[T]` bool, or a dict by name; gradients of inactive tasks are masked out,
        so that a NaN there does no harm.

    Returns:
      Tree of `[*param.shape]` leaves, summed in float32 and cast back to the dtype of
      each incoming leaf.

    Raises:
      ValueError: if `weights` is not one weight a task.

    Cost: one read of the gradients; one backward pass for lazy ones, and T more where
    the NaN of an inactive task got into it.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> mtl.combine(
      ...     {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}, jnp.array([0.5, 2.0])
      ... )
      {'w': Array([-1.5,  2. ], dtype=float32)}
    """
    gradients = unchecked(task_gradients, active)
    weights = jnp.asarray(by_position(weights, "weights", gradients.names))
    num_tasks = gradients.num_tasks
    if weights.shape != (num_tasks,) and jax.tree.leaves(gradients.like()):
        raise ValueError(
            f"combine: weights must have one entry a task, shape ({num_tasks},); got "
            f"shape {weights.shape}."
        )
    return gradients.pull(weights)
