"""subsample_tasks: fewer pull-backs a step, as in CAGrad-Fast."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.checks import static_int
from mtl_optax.core.arguments.losses import stack_losses


def subsample_tasks(
    key: jax.Array, losses: Any, n: int
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    r"""Replaces T losses by n: n-1 random ones, and the mean of the rest.

    .. math::
      L' = \Big( L_{\pi_1}, \ldots, L_{\pi_{n-1}},
      \tfrac{1}{T-n+1} \sum_{j \ge n} L_{\pi_j} \Big), \quad
      p = \Big( \tfrac1T, \ldots, \tfrac1T, \tfrac{T-n+1}T \Big)

    so that :math:`\sum_i p_i L'_i` is the mean loss whatever the permutation
    :math:`\pi`.

    Args:
      key: a key from `jax.random.key`, a fresh one for each step.
      losses: T task losses, a dict or tuple of scalars or an array `[T]`.
      n: number of losses wanted, a Python int from 1 to T.

    Returns:
      `(losses', prior)`: a tuple of n scalars, and the prior `[n]`, which depends on T
      and n only. With `mtl_optax.cagrad(n, preference=prior)` this is CAGrad-Fast; with
      n = T it is plain CAGrad.

    Raises:
      ValueError: if n is no Python int from 1 to T, or a loss is not a scalar.

    Cost: n backward passes through what tasks share, instead of T.

    When not to use it: with methods that keep statistics of a task, since the tasks'
    places change from step to step; with few tasks, where the noise is not worth it.
    Tasks are not isolated from one another's NaN.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl
      >>> losses, prior = mtl.subsample_tasks(jax.random.key(0), jnp.ones(10), n=4)
      >>> len(losses), prior
      (4, Array([0.1, 0.1, 0.1, 0.7], dtype=float32))

    References:
      Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
      <https://arxiv.org/abs/2110.14048>`_, 2021, section 3.3. The authors' code drops
      one task from the rest by an off-by-one; here all T are used.
    """
    stacked = stack_losses(losses)
    num_tasks = stacked.shape[0]
    if static_int("n", n) > num_tasks:
        raise ValueError(f"n must be at most the number of tasks {num_tasks}; got {n}.")
    shuffled = stacked[jax.random.permutation(key, num_tasks)]
    prior = (
        jnp.full(n, 1 / num_tasks, jnp.result_type(float))
        .at[n - 1]
        .set((num_tasks - n + 1) / num_tasks)
    )
    return (*shuffled[: n - 1], jnp.mean(shuffled[n - 1 :])), prior
