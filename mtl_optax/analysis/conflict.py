"""How far the gradients of T tasks disagree: angle, magnitude, and sign.

The three measures of Elich et al. (Examining Common Paradigms in Multi-task Learning,
2024), whose finding is worth knowing before one reads them: angles between two samples
of one task spread as widely as angles between tasks; only the differences of magnitude
are peculiar to multi-task learning.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.products import gramian
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.spread import similarity
from mtl_optax.core.task_grads.as_task_grads import unchecked


def cosine_similarity(task_gradients: Any) -> jax.Array:
    r"""Cosine of the angle between each pair of task gradients.

    .. math:: C_{ts} = \frac{\langle g_t, g_s \rangle}{\|g_t\| \, \|g_s\|}

    Args:
      task_gradients: tree of stacked gradients, each leaf `[T, *param.shape]`, or
        :class:`mtl_optax.LazyTaskGrads`.

    Returns:
      `[T, T]`, symmetric with unit diagonal, float32 (float64 under x64). Negative
      where two tasks conflict; 0 between a task without gradient and any other.

    Raises:
      ValueError: if the tree has no leaves.

    Cost: one read of the gradients; lazy ones are pulled back first.

    When not to use it: while training with a from_gramian method, which has formed the
    Gramian already; :func:`mtl_optax.conflicts` reads it from the state. And not on all
    parameters where tasks have heads of their own: a head adds to one norm and to no
    inner product, so cosines shrink with its size. Hand over the shared leaves only.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.conflict import cosine_similarity
      >>> cosine_similarity({"w": jnp.array([[3.0, 4.0], [-4.0, 0.0]])}).round(2)
      Array([[ 1. , -0.6],
             [-0.6,  1. ]], dtype=float32)

    References:
      Elich et al., `Examining Common Paradigms in Multi-task Learning
      <https://arxiv.org/abs/2311.04698>`_, 2024.
    """
    return linalg.cosine_matrix(gramian(task_gradients))[0]


def magnitude_similarity(task_gradients: Any) -> jax.Array:
    r"""How near the norms of each pair of task gradients are, from 0 to 1.

    .. math:: M_{ts} = \frac{2 \, \|g_t\| \, \|g_s\|}{\|g_t\|^2 + \|g_s\|^2}

    Args:
      task_gradients: as in :func:`cosine_similarity`.

    Returns:
      `[T, T]`, symmetric with unit diagonal: 1 for equal norms, 0.6 for norms 1 and 3,
      0 if only one is zero. Two zero gradients give 1 (INFERRED: the paper leaves 0/0
      open; equal norms are alike).

    Raises:
      ValueError: if the tree has no leaves.

    Cost: as :func:`cosine_similarity`.

    When not to use it: to compare runs whose loss scales differ, which it measures as
    much as the tasks; and under a per-task Adam, which removes the difference anyhow.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.conflict import magnitude_similarity
      >>> magnitude_similarity({"w": jnp.array([[1.0, 0.0], [0.0, 3.0]])})
      Array([[1. , 0.6],
             [0.6, 1. ]], dtype=float32)

    References:
      Elich et al., `Examining Common Paradigms in Multi-task Learning
      <https://arxiv.org/abs/2311.04698>`_, 2024; as in Yu et al., `Gradient Surgery
      for Multi-Task Learning <https://arxiv.org/abs/2001.06782>`_, 2020, definition 2.
    """
    _, norms = linalg.cosine_matrix(gramian(task_gradients))
    return similarity(norms)


def conflict_fraction(task_gradients: Any) -> jax.Array:
    r"""Share of the coordinates in which two task gradients have opposite signs.

    .. math:: F_{ts} = \frac1P \sum_{k=1}^P \mathbb{1}[g_{t,k} \, g_{s,k} < 0]

    INFERRED: Elich et al. name the ratio of conflicting gradient parameters and do not
    write out its formula; this is the plain reading. Signs are compared, so the product
    of two small entries cannot underflow to "no conflict".

    Args:
      task_gradients: as in :func:`cosine_similarity`.

    Returns:
      `[T, T]`, symmetric with zero diagonal, float32 (float64 under x64). Coordinates
      that are zero in either gradient do not conflict, and count in P.

    Raises:
      ValueError: if the tree has no leaves, or only empty ones.

    Cost: two Gramians, and the signs of one leaf at a time.

    When not to use it: with heads of their own among the parameters, or with sparse
    gradients (embeddings, dead ReLUs): their zeros are never in conflict and lower the
    share. And alone: half of the signs of two unrelated gradients are opposite.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.conflict import conflict_fraction
      >>> grads = {
      ...     "w": jnp.array([[1.0, 2.0, 0.0], [1.0, -1.0, -5.0]]),
      ...     "b": jnp.array([0.1, -0.1]),
      ... }
      >>> conflict_fraction(grads)
      Array([[0. , 0.5],
             [0.5, 0. ]], dtype=float32)

    References:
      Elich et al., `Examining Common Paradigms in Multi-task Learning
      <https://arxiv.org/abs/2311.04698>`_, 2024.
    """
    gradients = unchecked(task_gradients).computed()
    places = range(len(jax.tree.leaves(gradients.like())))
    size = 0
    opposite: Any = 0.0
    for here in places:
        one = gradients.select(tuple(place == here for place in places))
        (stacked,) = jax.tree.leaves(one.stack())
        signs = jnp.sign(stacked)
        # Where both are nonzero, 1 - s s' is 2 for opposite signs, else 0.
        both, agree = gramian(jnp.abs(signs)), gramian(signs)
        opposite = opposite + jnp.maximum(both - agree, 0) / 2
        size += math.prod(stacked.shape[1:])
    if size == 0:
        raise ValueError("conflict_fraction: the task gradients have no coordinates.")
    return opposite / size
