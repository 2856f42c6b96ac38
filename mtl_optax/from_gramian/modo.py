r"""MoDo: multi-objective gradients from double sampling (Chen et al. 2023).

One projected gradient step a call on the weights of the min-norm point, whose gradient
:math:`J J^\top \lambda` two independent batches estimate without bias. The form here
takes the direction from a third batch, as LibMTL does; the authors' code sums the first
two, and TorchJD shows both ways. TorchJD takes steps of 0.1, LibMTL and we of 0.001.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.simplex import project_simplex
from mtl_optax.core.task_grads.in_range import as_seen
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class MoDoState(NamedTuple):
    """State of MoDo."""

    simplex_weights: TaskRows  # [T], those of inactive tasks as they were


@gramian_method
def modo(*, gamma: ScalarOrSchedule = 1e-3, rho: ScalarOrSchedule = 0.1) -> Weighting:
    r"""Multi-objective gradients with weights learned from independent batches.

    .. math::
      \lambda \leftarrow \Pi_\Delta\big(\lambda - \gamma (J_1 J_2^\top \lambda
      + \rho \lambda)\big), \quad d = J_3^\top \lambda

    The weights follow those of MGDA slowly, so that the noise of a batch does not turn
    the direction, and the bias that MGDA has on batches is taken out.

    Args:
      num_tasks: T, a Python int.
      gamma: step size of the weights, which multiplies squared gradient norms.
      rho: pulls the weights towards 1/T.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients J3 `[T, *param]`, or lazy ones. Its
      `update` takes `gramian=` `[T, T]`, the products J1 J2' of gradients on two
      other batches, `mtl_optax.gramian(first, second)`. Without it the Gramian of the
      gradients stands in: one batch, with MGDA's bias. Output scale: simplex. T=1
      gives the gradient itself. The weights of a task that was missing return as they
      were, projected on the simplex together with those of the others.

    Raises:
      ValueError: for a negative `gamma` or `rho`; for a `gramian` that is not
        `[T, T]`; for gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; state of T numbers. With
    `gramian` no Gramian is formed, and lazy gradients need one pass (beside the 2T
    behind J1 J2').

    Invariances: none, not even to a factor common to all losses: `gamma` has the unit
    of an inverse squared gradient norm.

    Guarantee: none for a single step; over many small ones, with independent batches,
    the weights approach the min-norm point of the expected gradients.

    When not to use it: with gradients whose size is unknown or changes, because `gamma`
    has the unit of an inverse squared norm: too small, and d stays the mean; too large,
    and the weights jump between corners. :func:`mtl_optax.sdmgrad` scales its steps.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.modo(num_tasks=2, gamma=0.1)
      >>> params = {"w": jnp.zeros(2)}
      >>> first = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> second = {"w": jnp.array([[1.0, 1.0], [0.0, 2.0]])}
      >>> third = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> cross = mtl.gramian(first, second)
      >>> update, state = tx.update(third, tx.init(params), params, gramian=cross)
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.625, 0.375], dtype=float32)

    References:
      Chen et al., `Three-Way Trade-Off in Multi-Objective Learning: Optimization,
      Generalization and Conflict-Avoidance <https://arxiv.org/abs/2305.20057>`_, 2023.
    """
    checks.at_least("gamma", gamma, 0)
    checks.at_least("rho", rho, 0)

    def init(num_tasks: int) -> MoDoState:
        return MoDoState(jnp.full(num_tasks, 1 / num_tasks, jnp.result_type(float)))

    def update(
        gramian: jax.Array,
        state: MoDoState,
        *,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, MoDoState]:
        del extra
        # Among the tasks that are present the weights sum to 1 again.
        weights = project_simplex(state.simplex_weights, active)
        slope = linalg.dot(as_seen(gramian, jnp.asarray(unit)), weights) + rho * weights
        weights = project_simplex(weights - gamma * slope, active)
        kept = jnp.where(active, weights, state.simplex_weights)
        return weights, MoDoState(kept)

    return Weighting(init, update, asymmetric=True)
