"""every_k: weights computed every k steps, and held in between."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.weighting import Weighting, check_weighting, for_tasks_only


class EveryKState(NamedTuple):
    """State of every_k."""

    step_in_cycle: jax.Array  # [] int32, steps since the weights were computed
    every: Any  # state of the wrapped weighting


def every_k(weighting: Weighting, k: int) -> Weighting:
    r"""Recomputes task weights at steps 0, k, 2k, ... and holds them in between.

    .. math:: w_s = \text{weighting}(K_s) \text{ if } s \bmod k = 0
      \text{ else } w_{s-1}

    Args:
      weighting: for example `mtl.nash_mtl.weighting()`.
      k: number of steps that weights last, a Python int.

    Returns:
      A weighting for :func:`mtl_optax.from_weighting`. Its own statistics move only
      when weights are computed. A task that was inactive then has weight 0 until the
      next time; held weights are not checked for Pareto stationarity.

    Raises:
      ValueError: for a `k` that is no positive Python int.

    Cost: with lazy gradients that of the method (T backward passes, or at most T) once
    in k steps, one backward pass in the other steps; stacked ones are computed at every
    step whatever the method does.

    When not to use it: under `jax.vmap` over seeds, where both kinds of step are
    computed always; with tasks that come and go.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> weighting = mtl.every_k(mtl.mgda.weighting(), k=2)
      >>> tx = mtl.from_weighting(weighting, num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> for size in (1.0, 7.0):
      ...     grads = {"w": jnp.array([[1.0, 0.0], [0.0, size]])}
      ...     update, state = tx.update(grads, state, params)
      ...     print(mtl.task_weights(state))
      [0.5 0.5]
      [0.5 0.5]

    References:
      Navon et al., `Multi-Task Learning as a Bargaining Game
      <https://arxiv.org/abs/2202.01017>`_, 2022, section 3.3, who hold Nash-MTL's.
    """
    k = checks.static_int("k", k)
    check_weighting("every_k", weighting)

    def init(num_tasks: int) -> EveryKState:
        return EveryKState(jnp.zeros((), jnp.int32), weighting.init(num_tasks))

    def due(state: EveryKState) -> tuple[jax.Array, EveryKState]:
        following = state._replace(step_in_cycle=(state.step_in_cycle + 1) % k)
        return state.step_in_cycle == 0, following

    def update(
        gramian: jax.Array | None, state: EveryKState, **extra: Any
    ) -> tuple[jax.Array, EveryKState]:
        weights, inner = weighting.update(gramian, state.every, **extra)
        return weights, state._replace(every=inner)

    return for_tasks_only(weighting._replace(init=init, update=update, due=due))
