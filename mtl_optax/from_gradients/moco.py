r"""MoCo: multi-objective descent with gradient correction (Fernando et al. 2023).

`projection="simplex"` is the authors' code, and its defaults ours;
`projection="softmax"` is LibMTL's, which first brings each gradient to the length of
its loss (its defaults: `beta=0.5, beta_sigma=0.5, gamma=0.1, gamma_sigma=0.5, rho=0`).
There a negative loss turns its gradient around; here it counts by its size.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.cancellation import zero_if_noise
from mtl_optax.core.method import transformation_method
from mtl_optax.core.scalarization import softmax_among
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.simplex import project_simplex
from mtl_optax.core.stacked import follow, from_stack, zero_stack
from mtl_optax.core.task_grads.as_task_grads import unchecked
from mtl_optax.core.task_grads.in_range import as_seen
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree, lead


class MoCoState(NamedTuple):
    """State of MoCo."""

    task_weights: TaskRows  # [T] weights of the last update
    shares: TaskRows  # [T] lambda, as multiples of its mean
    tracked: TaskTree  # [T, *param], float32 or wider, corrected gradients
    steps: TaskRows  # [T] int32, steps at which the task was active


@transformation_method
def moco(
    num_tasks: int,
    *,
    beta: ScalarOrSchedule = 0.1,
    beta_sigma: ScalarOrSchedule = 0.0,
    gamma: ScalarOrSchedule = 0.1,
    gamma_sigma: ScalarOrSchedule = 0.0,
    rho: ScalarOrSchedule = 0.1,
    projection: str = "simplex",
) -> optax.GradientTransformationExtraArgs:
    r"""Tracks each gradient over time, and steps towards the tracks' min-norm weights.

    .. math::
      y_t \leftarrow y_t + \beta_n (g_t - y_t), \quad
      \lambda \leftarrow P(\lambda - \gamma_n (Y Y^\top + \rho I) \lambda), \quad
      d = \sum_t \lambda_t y_t

    with :math:`\beta_n = \beta / n_t^{\sigma_\beta}` and :math:`\gamma_n = \gamma /
    n_t^{\sigma_\gamma}`, where :math:`n_t` counts the steps of task t, from 1. It
    starts at y = 0 and equal weights.

    Args:
      num_tasks: T, a Python int.
      beta: step of the tracks.
      beta_sigma: how fast that step falls.
      gamma: step of the weights.
      gamma_sigma: how fast that step falls.
      rho: pull towards equal weights.
      projection: P, "simplex" for the projection on the simplex, or "softmax" for
        LibMTL's form, softmax on gradients scaled to :math:`\|g_t\| = |L_t|`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. With "softmax" its `update` needs `losses=` `[T]`. Weights of active tasks
      sum to 1, and go on from their former proportions; how much the absent weigh
      beside the active stays. Output scale: simplex weights on the tracks, which are
      beta times the gradients at first. T=1 gives the track.

    Raises:
      ValueError: if `losses=` is missing for "softmax"; for an unknown `projection` or
        a negative number among the arguments; for gradients that are not stacked, or
        another task count.

    Cost: T backward passes and T copies of the gradient; state of T copies more; a
    Gramian.

    Invariances: none, not even to a factor common to all losses: `gamma` has the unit
    of an inverse squared gradient norm. ("softmax" replaces norms by losses.)

    Guarantee: with steps that fall fast enough the expected direction tends to that of
    MGDA on the gradients without noise, which the weights of noisy ones miss. A single
    update may harm a task; where the weights cancel the tracks it is exactly zero.

    When not to use it: with losses of different scales, which the simplex form neither
    equals out nor is blind to: gamma times a squared gradient norm of 1 or more sends
    all weight to one task; where T copies of the parameters do not fit.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.moco(num_tasks=2, beta=1.0, rho=0.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> update, state = tx.update(grads, tx.init(params), params)
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.575, 0.425], dtype=float32)
      >>> np.asarray(update["w"]).round(4)
      array([0.575, 0.85 ], dtype=float32)

    References:
      Fernando et al., `Mitigating Gradient Bias in Multi-objective Learning: A Provably
      Convergent Approach <https://arxiv.org/abs/2210.12624>`_, 2023.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.one_of("projection", projection, ("simplex", "softmax"))
    sigmas = {"beta_sigma": beta_sigma, "gamma_sigma": gamma_sigma}
    for name, value in {"beta": beta, "gamma": gamma, "rho": rho, **sigmas}.items():
        checks.at_least(name, value, 0)

    def init(params: optax.Params) -> MoCoState:
        zeros = replicated_zeros((num_tasks,), params)
        tracked = zero_stack(params, num_tasks)
        return MoCoState(zeros, zeros + 1, tracked, zeros.astype(jnp.int32))

    def update(
        gradients: optax.Updates,
        state: MoCoState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: Any,
    ) -> tuple[optax.Updates, MoCoState]:
        del extra
        if projection == "softmax":
            losses = checks.required("moco", "losses", losses)
            gradients = _as_long_as(losses, gradients)
        steps = state.steps + active
        count = jnp.maximum(steps, 1).astype(jnp.result_type(float))
        tracked = follow(state.tracked, gradients, beta / count**beta_sigma, active)
        rows = unchecked(tracked)
        products, unit = rows.measure()

        shares = jnp.where(active, state.shares, 0)
        # Where the absent tasks hold all the weight, the others start anew.
        shares = jnp.where(jnp.any(shares > 0), shares, active)
        total = jnp.sum(shares)
        weights = shares / jnp.maximum(total, jnp.finfo(total.dtype).tiny)
        slope = linalg.dot(as_seen(products, unit), weights) + rho * weights
        point = weights - gamma / count**gamma_sigma * slope
        project = project_simplex if projection == "simplex" else softmax_among
        weights = project(point, active)
        combined = zero_if_noise(rows, weights, products, unit)
        shares = jnp.where(active, weights * total, state.shares)
        return combined, MoCoState(weights, shares, tracked, steps)

    return from_stack(num_tasks, init, update)


def _as_long_as(losses: jax.Array, gradients: optax.Updates) -> optax.Updates:
    """Gradients scaled to the norms `[T]`, zero ones left zero."""
    gramian, unit = unchecked(gradients).measure()
    scale = jnp.abs(losses) / (jnp.sqrt(jnp.diagonal(gramian)) * unit + 1e-8)
    return jax.tree.map(lambda g: lead(scale, g) * g, gradients)
