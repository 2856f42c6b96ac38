"""cr_mogm: task weights smoothed over steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import weighting_wrapper
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting, check_weighting


class CRMOGMState(NamedTuple):
    """State of cr_mogm."""

    smooth_weights: TaskRows  # [T], those of inactive tasks as they were
    started: TaskRows  # [T] bool, whether the task has smooth weights
    smoothed: Any  # state of the wrapped weighting


@weighting_wrapper
def cr_mogm(
    weighting: Weighting,
    num_tasks: int | None = None,
    *,
    alpha: ScalarOrSchedule = 0.9,
    initial_weights: PerTask = None,
) -> Weighting:
    r"""Smooths task weights over steps, so that the noise of a batch turns them less.

    .. math:: \lambda_k = \alpha \, \lambda_{k-1} + (1 - \alpha) \, \hat\lambda_k

    where :math:`\hat\lambda_k` are the weights of the wrapped weighting. Around MGDA,
    PCGrad or CAGrad this is CR-MOGM.

    Args:
      weighting: for example `mtl.mgda.weighting()`.
      num_tasks: T, a Python int; only to check `initial_weights` by, and not needed.
      alpha: share of the last weights; 0 leaves the weighting as it is. The paper
        proposes one minus the ratio of the learning rate to the first.
      initial_weights: :math:`\lambda_0`, `[T]` in sorted order of names or a dict by
        name; with None :math:`\lambda_1` is :math:`\hat\lambda_1`, task by task at
        its first step.

    Returns:
      A weighting for :func:`mtl_optax.from_weighting`. The weights of a missing task
      stay as they were until it returns. With `every_k`, inside or around it, weights
      are smoothed when they are computed and held in between.

    Raises:
      ValueError: for a negative `alpha`; for `initial_weights` that are not `[T]`.

    Cost: that of the weighting; T numbers.

    When not to use it: if the guarantee of the wrapped method is needed at every step
    (smooth weights of MGDA may conflict), or to weight by losses that change fast.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> weighting = mtl.cr_mogm(mtl.mgda.weighting(), alpha=0.5)
      >>> tx = mtl.from_weighting(weighting, num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> for size in (1.0, 2.0):
      ...     grads = {"w": jnp.array([[1.0, 0.0], [0.0, size]])}
      ...     update, state = tx.update(grads, state, params)
      ...     print(np.asarray(mtl.task_weights(state)).round(4))
      [0.5 0.5]
      [0.65 0.35]

    References:
      Zhou et al., `On the Convergence of Stochastic Multi-Objective Gradient
      Manipulation and Beyond
      <https://papers.neurips.cc/paper_files/paper/2022/hash/f91bd64a3620aad8e70a27ad9cb3ca57-Abstract-Conference.html>`_,
      2022.
    """
    checks.at_least("alpha", alpha, 0)
    check_weighting("cr_mogm", weighting)
    if num_tasks is not None:
        _initial(initial_weights, checks.static_int("num_tasks", num_tasks))

    def init(num_tasks: int) -> CRMOGMState:
        return CRMOGMState(
            _initial(initial_weights, num_tasks),
            jnp.full(num_tasks, initial_weights is not None),
            weighting.init(num_tasks),
        )

    def update(
        gramian: jax.Array | None,
        state: CRMOGMState,
        *,
        active: jax.Array,
        **extra: Any,
    ) -> tuple[jax.Array, CRMOGMState]:
        weights, inner = weighting.update(
            gramian, state.smoothed, active=active, **extra
        )
        mixed = alpha * state.smooth_weights + (1 - alpha) * weights
        weights = jnp.where(state.started, mixed, weights)
        kept = jnp.where(active, weights, state.smooth_weights)
        return weights, CRMOGMState(kept, state.started | active, inner)

    due = None if weighting.due is None else _due_inside(weighting.due)
    return weighting._replace(init=init, update=update, due=due)


def _due_inside(
    inner_due: Callable[[Any], tuple[jax.Array, Any]],
) -> Callable[[CRMOGMState], tuple[jax.Array, CRMOGMState]]:
    def due(state: CRMOGMState) -> tuple[jax.Array, CRMOGMState]:
        yes, inner = inner_due(state.smoothed)
        return yes, state._replace(smoothed=inner)

    return due


def _initial(initial_weights: Any, num_tasks: int) -> jax.Array:
    if initial_weights is None:
        return jnp.zeros(num_tasks, jnp.result_type(float))
    # A copy: a caller may donate the state, and then start again.
    return jnp.copy(checks.task_vector("initial_weights", initial_weights, num_tasks))
