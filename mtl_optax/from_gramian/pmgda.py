r"""PMGDA: preference-based multiple gradient descent (Zhang, Lin and Zhang 2024).

Written from the formulas of the authors' library libmoon (MIT), its `solve_pmgda` and
`config/pmgda.json`, whose numbers are the defaults (sigma was 0.8 and 0.1 before); the
paper's equations were read in a summary. In the prediction step the library takes MGDA
of the gradients as they are, the paper that of their parts along which h stays: that is
`predict="tangent"`. The library adds 1e-4 to norms, which makes the correction
unsolvable where that of h is below 0.0019; here nothing is added. A task with zero
gradient sets no constraint, where theirs caps the least gain at 0.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.scalarization import away_from, unit
from mtl_optax.core.solvers import linalg, pmgda_solver
from mtl_optax.core.solvers.min_norm import min_norm_weights
from mtl_optax.core.weighting import Weighting, no_state


def _off_the_ray(
    losses: jax.Array, preference: PerTask, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradient `[T]` of h with respect to the losses, of length 1, and h."""
    point, length = unit(jnp.where(active, losses, 0))
    aside = away_from(unit(preference_or_uniform(preference, active))[0], point)
    slope, share = unit(aside)
    return slope, length * share


def _along(gramian: jax.Array, slope: jax.Array, active: jax.Array) -> jax.Array:
    """MGDA's weights of the gradients' parts that leave h as it is."""
    towards = linalg.dot(gramian, slope)
    square = linalg.dot(slope, towards)
    towards /= jnp.where(square > 0, square, 1)
    keep = jnp.eye(len(slope), dtype=slope.dtype) - towards[:, None] * slope[None, :]
    parts = linalg.dot(keep, linalg.dot(gramian, keep.T))
    return linalg.dot(min_norm_weights(parts, active), keep)


@gramian_method
def pmgda(
    *,
    preference: PerTask = None,
    eps: ScalarOrSchedule = 0.01,
    sigma: ScalarOrSchedule = 0.95,
    predict: str = "mgda",
) -> Weighting:
    r"""Descends on a preferred ray of losses, and corrects where it has left it.

    .. math::
      h = \| L - \langle L, \hat p \rangle \hat p \|, \quad
      \nabla h = \sum_t u_t \, g_t, \quad
      u = \frac{L - \langle L, \hat p \rangle \hat p}{h}, \quad \hat p = p / \|p\|

    Where h is below eps (prediction) d is that of MGDA. Elsewhere (correction) it is
    the combination of unit gradients with the best least gain that lowers h by a share
    sigma of the steepest:

    .. math::
      d = \sum_t m_t \, \hat g_t + m_h \, \widehat{\nabla h}, \quad
      \max_{m \in \Delta} \min_t \, \langle g_t, d \rangle \quad \text{s.t.} \quad
      \langle \nabla h, d \rangle \ge \sigma \|\nabla h\|

    Args:
      num_tasks: T, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name, not negative, the
        direction in which losses are to lie; None is uniform.
      eps: the distance h that counts as on the ray, in the unit of the losses, at least
        0; may be a tracer.
      sigma: share of the steepest descent of h, from 0 to 1; may be a tracer.
      predict: "mgda" takes the gradients as they are on the ray; "tangent" their parts
        along which h stays, as in the paper.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. Output scale: norm at most 1 off the ray, whatever
      the gradients' size; on it the shortest vector of the hull. Where the gradient of
      h is zero to rounding, the step on the ray. T=1 gives the gradient itself.

    Raises:
      ValueError: for a negative `eps`, a `sigma` that is not between 0 and 1, an
        unknown `predict`, or a `preference` that is not `[T]`; if `losses=` is missing
        or has another length; for gradients that are not stacked, or another task
        count.

    Cost: at most T backward passes with lazy gradients; no state of its own; a linear
    program of T + 2 numbers, a few factorisations of that size a step of it.

    Invariances: none to loss scales: the preference is a direction between raw losses.

    Guarantee: off the ray the distance from it falls, at sigma of the steepest rate or
    more; tasks that are ahead may ascend. On the ray, to eps, no task does.

    When not to use it: if no task may be harmed; if losses have no common scale, for
    which eps too would have to suit; with plain SGD, unless its rate suits steps of
    norm 1 off the ray and short ones on it: the step changes its size at the border,
    and chatters across it.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.pmgda(num_tasks=2, preference=[1.0, 1.0], sigma=0.8)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 3.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0., 0.5], dtype=float32)

    References:
      Zhang, Lin and Zhang, `PMGDA: A Preference-based Multiple Gradient Descent
      Algorithm <https://arxiv.org/abs/2402.09492>`_, 2024.
    """
    checks.at_least("eps", eps, 0)
    checks.at_least("sigma", sigma, 0)
    checks.at_most("sigma", sigma, 1)
    checks.one_of("predict", predict, ("mgda", "tangent"))

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        losses: jax.Array | None,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        losses = checks.required("pmgda", "losses", losses)
        slope, distance = _off_the_ray(losses, preference, active)
        still = linalg.cancels(slope, gramian)
        off = (distance > eps) & ~still
        share = jnp.asarray(sigma, gramian.dtype)
        aside = jnp.where(off, slope, 0)
        correct = pmgda_solver.correction(gramian, aside, share) / unit
        descent = min_norm_weights(gramian, active)
        if predict == "tangent":
            descent = jnp.where(still, descent, _along(gramian, slope, active))
        return jnp.where(off, correct, descent), state

    return Weighting(no_state(preference=preference), update)
