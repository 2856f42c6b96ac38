r"""DB-MTL: dual balancing of losses and gradients (Lin et al. 2023, Algorithm 1).

Follows LibMTL, the authors' library: the average starts at zero without bias
correction, so that with `beta=0.9` the first update is a tenth of what it tends to.
Three differences: a task without gradient has weight 0 (there :math:`10^8` times the
largest norm, times zero); losses below 0, whose logarithm is NaN there, count as 0; and
gradients that cancel give exactly zero, not the rounding left over.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.cancellation import zero_if_noise
from mtl_optax.core.method import transformation_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.stacked import follow, from_stack, zero_stack
from mtl_optax.core.task_grads.as_task_grads import unchecked
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree, lead

_LOSS_FLOOR = 1e-8


class DBMTLState(NamedTuple):
    """State of DB-MTL."""

    task_weights: TaskRows  # [T] of the last update, factors of the averages
    averages: TaskTree  # [T, *param], float32 or wider, of gradients of log losses
    steps: TaskRows  # [T] int32, steps at which the task was active


@transformation_method
def db_mtl(
    num_tasks: int,
    *,
    beta: ScalarOrSchedule = 0.9,
    beta_sigma: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradients of the log losses, averaged over time and brought to one length.

    .. math::
      y_t \leftarrow \beta_n y_t + (1 - \beta_n) \frac{g_t}{L_t + 10^{-8}}, \quad
      \beta_n = \frac{\beta}{n_t^\sigma}, \quad
      d = \sum_t \frac{\max_s \|y_s\|}{\|y_t\| + \epsilon} \, y_t

    where :math:`n_t` counts the steps of task t, from 1, and y starts at 0.

    Args:
      num_tasks: T, a Python int.
      beta: :math:`\beta`, how much of the average is kept.
      beta_sigma: :math:`\sigma`, how fast that part falls with the steps.
      eps: :math:`\epsilon` of the authors, a norm below which a task is no longer
        brought to full length; 0 makes the directions blind to the scale of each loss.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. Its `update` needs `losses=` `[T]`, positive; below 0 they count as 0. The
      task weights in its state are the factors of the averages y. A task with zero
      average has weight 0. Output scale: sum of T gradients of log losses, each as long
      as the longest; the first update is 1 - beta of that. T=1 gives its average y.

    Raises:
      ValueError: if `losses=` is missing or has another length; for a negative number
        among the arguments; for gradients that are not stacked, or another task count.

    Cost: T backward passes and T copies of the gradient; state of T copies more.

    Invariances: the update does not depend on the scale of any loss, for norms far
    above `eps` and losses far above 1e-8.

    Guarantee: all tasks pull equally hard, whatever the scale of each loss (up to eps)
    and of its gradient. None on conflicts; gradients that cancel give exactly zero.

    When not to use it: with losses that are or become negative, or reach 0, where the
    gradient of the logarithm has no bound and sets the length of all; where T copies of
    the parameters do not fit; where short, noisy gradients must stay short.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.db_mtl(num_tasks=2, beta=0.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 1.0])
      ... )
      >>> update, mtl.task_weights(state)
      ({'w': Array([2., 2.], dtype=float32)}, Array([2., 1.], dtype=float32))

    References:
      Lin et al., `Dual-Balancing for Multi-Task Learning
      <https://arxiv.org/abs/2308.12029>`_, 2023.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    for name, value in {"beta": beta, "beta_sigma": beta_sigma, "eps": eps}.items():
        checks.at_least(name, value, 0)

    def init(params: optax.Params) -> DBMTLState:
        weights = replicated_zeros((num_tasks,), params)
        steps = weights.astype(jnp.int32)
        return DBMTLState(weights, zero_stack(params, num_tasks), steps)

    def update(
        gradients: optax.Updates,
        state: DBMTLState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: Any,
    ) -> tuple[optax.Updates, DBMTLState]:
        del extra
        losses = checks.required("db_mtl", "losses", losses)
        steps = state.steps + active
        slope = 1 / (jnp.maximum(losses, 0) + _LOSS_FLOOR)
        of_logs = jax.tree.map(lambda g: lead(slope, g) * g, gradients)
        count = jnp.maximum(steps, 1).astype(jnp.result_type(float))
        rate = 1 - beta / count**beta_sigma
        averages = follow(state.averages, of_logs, rate, active)

        rows = unchecked(averages)
        products, unit = rows.measure()
        norms = jnp.where(active, linalg.cosine_matrix(products)[1] * unit, 0)
        some = norms > 0
        weights = jnp.where(some, jnp.max(norms) / jnp.where(some, norms + eps, 1), 0)
        combined = zero_if_noise(rows, weights, products, unit)
        return combined, DBMTLState(weights, averages, steps)

    return from_stack(num_tasks, init, update)
