r"""EPO: exact Pareto optimal search (Mahapatra and Rajan 2020, Algorithm 1).

Written from the formulas of the authors' code (MIT), as its linear program states them.
They call GLPK on the host at each step; here a dual simplex method runs on the device.
Where the restricted program has no solution they fall back to r/sum(r), which may
ascend; here to MGDA's weights, which do not. Their training multiplies the weights by
T, their toy experiments by 10 max(mu, 0.1); Algorithm 1 by nothing. INFERRED: a share
of the losses below the rounding of 1 counts as that in a logarithm, which theirs makes
infinite, and losses below 0 count as 0, where they raise.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import epo_solver
from mtl_optax.core.solvers.linalg import noise_floor
from mtl_optax.core.solvers.min_norm import min_norm_weights
from mtl_optax.core.weighting import Weighting, no_state


def _balance(
    losses: jax.Array, slopes: jax.Array, active: jax.Array
) -> epo_solver.Balance:
    """How far the losses are from the ray of equal r_t L_t, and what leads there."""
    most = 1 / float(jnp.finfo(losses.dtype).tiny)  # that still has an inverse
    losses = jnp.where(active, jnp.clip(losses, 0, most), 0)
    largest = jnp.max(losses)  # first, since a sum of large ones may be no number
    relative = slopes * (losses / jnp.where(largest > 0, largest, 1))
    count, total = jnp.maximum(jnp.sum(active), 1), jnp.sum(relative)
    uniform = active / count.astype(relative.dtype)
    share = jnp.where(total > 0, relative / jnp.where(total > 0, total, 1), uniform)
    eps = float(jnp.finfo(share.dtype).eps)
    above = jnp.log(jnp.where(active, jnp.maximum(share, eps) * count, 1))
    unevenness = jnp.sum(jnp.where(share > eps, share * above, 0))
    ahead = above - unevenness
    ahead = jnp.where(jnp.abs(ahead) <= noise_floor(len(share), share.dtype), 0, ahead)
    worst = active & (relative == jnp.max(jnp.where(active, relative, -1)))
    return epo_solver.Balance(unevenness, slopes * ahead, worst)


@gramian_method
def epo(
    *, preference: PerTask = None, eps: ScalarOrSchedule = 1e-4, relax: bool = False
) -> Weighting:
    r"""Exact Pareto optimal search: to the Pareto point where all r_t L_t are equal.

    .. math::
      \hat l_t = \frac{r_t L_t}{\sum_s r_s L_s}, \quad
      \mu = \sum_t \hat l_t \log(T \hat l_t), \quad
      a_t = r_t (\log(T \hat l_t) - \mu), \quad d = \sum_t w_t \, g_t

    In balance, :math:`\mu \le` eps, the steepest common descent,
    :math:`\max_{w \in \Delta} \sum_t (K w)_t` with :math:`K w \ge 0` and
    :math:`\langle w, K a \rangle \ge \min(0, \max_t (K a)_t)`. Out of balance the step
    most like :math:`\sum_t a_t g_t`, with an ascent of the tasks that are ahead, as far
    as that step itself has it: :math:`\max_{w \in \Delta} \langle w, K a \rangle` with
    :math:`(K w)_t \ge (K a)_t` where :math:`(K a)_t \le 0` and :math:`(K w)_t \ge 0`
    for the largest :math:`r_t L_t`; or, if no :math:`(K a)_t > 0`,
    :math:`K w \ge 0`.

    Args:
      num_tasks: T, a Python int.
      preference: r, `[T]` in sorted order of names or a dict by name, not negative: the
        larger, the smaller a loss is to be. None is uniform, 1/T over the active tasks.
        Its scale matters: the larger, the more ascent.
      eps: the unevenness mu that counts as balance, at least 0; may be a tracer.
      relax: whether the descent in balance may leave the ray, that is goes without the
        last constraint on it.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`, not negative. Output scale: simplex. Where several
      weights are the best, it is a vertex of them. T=1 gives the gradient itself.

    Raises:
      ValueError: for a negative `eps`, or a `preference` that is not `[T]`; if
        `losses=` is missing or has another length; for gradients that are not stacked,
        or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; a linear
    program of T numbers, a few T x T factorisations a step of it.

    Invariances: none to loss scales: the preference is one between raw losses.

    Guarantee: the task with the largest r_t L_t never ascends; in balance none does.
    Weights are at a vertex of a polytope, so they jump where the losses change little.

    When not to use it: if no task may be harmed, which balance asks for; with losses
    that are noisy, since the direction turns at once as another one is the largest; or
    with losses that reach 0 or have no common scale.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.epo(num_tasks=2, preference=[0.5, 0.5])
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 3.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0., 1.], dtype=float32)

    References:
      Mahapatra and Rajan, `Multi-Task Learning with User Preferences: Gradient Descent
      with Controlled Ascent in Pareto Optimization
      <https://proceedings.mlr.press/v119/mahapatra20a.html>`_, 2020.
    """
    checks.at_least("eps", eps, 0)

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        losses = checks.required("epo", "losses", losses)
        balance = _balance(losses, preference_or_uniform(preference, active), active)
        balancing = balance.unevenness > eps
        weights, feasible = epo_solver.steepest(
            gramian, balance, balancing, active, relax
        )
        return jnp.where(feasible, weights, min_norm_weights(gramian, active)), state

    return Weighting(no_state(preference=preference), update)
