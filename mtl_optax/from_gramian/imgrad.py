r"""IMGrad: CAGrad whose dual follows the imbalance of the gradients (Zhou et al. 2025).

Written from the formula only: the authors' code carries no licence. The constant 1.5
is that code's. DERIVED: its dual is CAGrad's with the radius
:math:`\alpha \mu / (1.5 - \mu)`, so one exact solver serves both; mu is in [0, 1],
since every gradient gains at least :math:`\|g_m\|^2` from the shortest vector of the
hull, and so does their mean. The length of the lift stays :math:`\alpha \|g_0\|`,
whatever mu is. Where 0 lies in the hull mu is 0, of which the dual is linear: the
gradient that conflicts most with the mean is lifted alone. (Their solvers, of a few
iterations, answer there by chance.)
"""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.rescale import check_rescale, divisor
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers.cagrad_solver import cagrad_lift
from mtl_optax.core.solvers.linalg import cancels, dot
from mtl_optax.core.solvers.min_norm import min_norm_weights
from mtl_optax.core.weighting import Weighting, no_state

_MARGIN = 1.5  # how far above mu the weight of the mean gradient begins
_LEAST = 64  # roundings, below which a radius is as good as none


def _length(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """Of the weighted sum; 1 where it cancels, to divide by."""
    square = jnp.maximum(dot(weights, dot(gramian, weights)), 0)
    return jnp.where(cancels(weights, gramian), 1, jnp.sqrt(square))


def _agreement(gramian: jax.Array, mean: jax.Array, rows: jax.Array) -> jax.Array:
    """Cosine of the mean gradient and the shortest vector of the hull; 0 for that 0."""
    weights = min_norm_weights(gramian, rows)
    product = dot(mean, dot(gramian, weights))
    cosine = product / _length(mean, gramian) / _length(weights, gramian)
    known = ~cancels(mean, gramian) & ~cancels(weights, gramian)
    return jnp.where(known, jnp.clip(cosine, 0, 1), 0)


@gramian_method
def imgrad(*, alpha: ScalarOrSchedule = 0.8, rescale: Any = 1) -> Weighting:
    r"""CAGrad whose weights follow the imbalance: opposed, the worst task counts alone.

    .. math::
      d = g_0 + \alpha \|g_0\| \frac{g_w}{\|g_w\|}, \quad
      w = \arg\min_{w \in \Delta} (1.5 - \mu) \langle g_w, g_0 \rangle
      + \mu \, \alpha \|g_0\| \, \|g_w\|, \quad \mu = \cos(g_0, g_m)

    with :math:`g_w = \sum_t w_t g_t`, the mean gradient :math:`g_0`, and :math:`g_m`
    that of :func:`mtl_optax.mgda`, the shortest vector of the hull.

    Args:
      num_tasks: T, a Python int.
      alpha: length of what is added to the mean gradient, relative to it, at least 0;
        may be a tracer, or a function of the step count, as in optax. 0 is the mean
        gradient exactly.
      rescale: 0 returns d, 1 divides it by 1+alpha^2 (the authors' experiments), 2 by
        1+alpha.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: mean (times at most (1+alpha)/(1+alpha^2)). T=1 gives
      (1+alpha)/(1+alpha^2) times the gradient. A task with zero gradient sets no
      constraint. Where the mean gradient is zero, so is the update; where weights
      cannot be told for rounding, since what they would add cancels, it is the mean
      gradient alone.

    Raises:
      ValueError: for a negative `alpha` or an unknown `rescale`; for gradients that are
        not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; a few
    T x T factorisations, those of CAGrad and of MGDA.

    Invariances: none to loss scales: what is added is as long as the mean gradient
    says.

    Guarantee: none on conflicts. For :math:`\alpha < 1` the mean loss gains at least
    :math:`(1 - \alpha) \|g_0\|^2`, before the rescaling. The direction of what is added
    is that of CAGrad in a ball of radius :math:`\alpha \mu / (1.5 - \mu)`, smaller than
    alpha for mu below 0.75 and larger above; only in that ball is it the best for the
    worst task.

    When not to use it: where losses differ in scale by design and the larger ones are
    to rule: a short gradient counts as an imbalance. Where gradients balance, mu near
    1, it is `cagrad(c=2 * alpha)` shortened to alpha; where they oppose one another it
    lifts the worst task alone.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.imgrad(num_tasks=2, alpha=0.4, rescale=0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[3.0, 0.0], [-1.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.9922, 1.5656], dtype=float32)

    References:
      Zhou et al., `Injecting Imbalance Sensitivity for Multi-Task Learning
      <https://arxiv.org/abs/2503.08006>`_, 2025.
    """
    checks.at_least("alpha", alpha, 0)
    check_rescale(rescale)

    def update(
        gramian: jax.Array, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        mean = preference_or_uniform(None, active)
        length = jnp.asarray(alpha, gramian.dtype)
        rows = active & (jnp.diag(gramian) > 0)
        mu = _agreement(gramian, mean, rows)
        least = _LEAST * jnp.finfo(length.dtype).eps
        radius = jnp.maximum(length * mu / (_MARGIN - mu), least)

        lift = cagrad_lift(gramian, mean, radius, active)
        known = ~cancels(lift, gramian) & ~cancels(mean, gramian)
        longer = length * _length(mean, gramian) / _length(lift, gramian)
        weights = mean + jnp.where(known, longer * lift, 0)
        return weights / divisor(rescale, length), state

    return Weighting(no_state(), update)
