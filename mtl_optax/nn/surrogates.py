"""Inputs of other tasks that are like a task's own, for the priors of VMTL."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Surrogates(NamedTuple):
    """For the examples of a task, inputs like them in the T-1 other tasks."""

    inputs: Array  # [T-1, B, in_dim]
    present: Array  # [T-1, B] bool, whether the other task has the class


def same_class_inputs(x: Array, labels: Array, others: Any) -> Surrogates:
    r"""For each example a mean of another task's inputs of the same class.

    .. math::
      \hat x = \sum_j \mathrm{softmax}_j \Big(
        \frac{x^\top f_j}{\max_k x^\top f_k - \min_k x^\top f_k} \Big) f_j

    over the inputs :math:`f_j` of the example's class.

    Args:
      x: `[B, in_dim]`.
      labels: `[B]`.
      others: pairs of inputs `[N, in_dim]` and labels `[N]`, of the T-1 other tasks in
        their order.

    Returns:
      `Surrogates`. Where another task lacks the class, `present` is False.
    """
    found = [_same_class(x, labels, *other) for other in others]
    return Surrogates(*(jnp.stack(parts) for parts in zip(*found, strict=True)))


def _same_class(x: Array, labels: Array, f: Array, f_labels: Array) -> Any:
    alike = labels[:, None] == f_labels[None]
    scores = x @ f.T
    top = jnp.max(scores, axis=1, where=alike, initial=-jnp.inf, keepdims=True)
    low = jnp.min(scores, axis=1, where=alike, initial=jnp.inf, keepdims=True)
    present = alike.any(axis=1)
    spread = jnp.where(present[:, None], top - low, 0) + 1e-9
    weights = jax.nn.softmax(scores / spread, axis=1, where=alike)
    return jnp.where(present[:, None], weights, 0) @ f, present
