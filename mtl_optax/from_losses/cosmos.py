"""COSMOS: a weighted sum that rewards a preferred ratio (Ruchte and Grabocka 2021).

The paper also feeds the preference to the network, and draws it anew for every batch,
so that one network learns the whole front; that is the model's part (a preference may
be a tracer). `mu` is its lambda.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import away_from, of_losses, positive, unit
from mtl_optax.core.weighting import Weighting


@losses_method
def cosmos(*, preference: PerTask = None, mu: ScalarOrSchedule = 1.0) -> Weighting:
    r"""Weighted sum of the losses, less their cosine with the preference.

    .. math::
      d = \nabla \big( \langle p, L \rangle - \mu \cos(p, L) \big), \quad
      w = p - \frac{\mu}{\|L\|} \big( \hat p - \cos(p, L) \, \hat L \big)

    with hats on vectors divided by their norm.

    Args:
      num_tasks: T, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name, not negative;
        None is uniform, 1/T over the active tasks.
      mu: weight of the cosine, at least 0; may be a tracer. The paper takes 0.01 to 8,
        depending on the data; the default 1 is INFERRED. 0 is the weighted sum.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. Where losses and preference are parallel to within
      rounding, or all losses are zero, the weights are p. Output scale: that of p, plus
      at most mu/||L||. T=1 gives the gradient times p.

    Raises:
      ValueError: for a negative `mu`, or a `preference` that is not `[T]`; if `losses=`
        is missing or has another length; for gradients that are not stacked, or
        another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales: the cosine is one between raw losses.

    Guarantee: the gradient of the scalar. Weights of tasks that are ahead of the
    preference may be negative: their losses are driven up.

    When not to use it: with losses of no common scale, or close to zero: the cosine's
    part grows as mu/||L|| (with ||L|| at least 1e-19 in float32), so mu must be chosen
    for the size of the losses.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.cosmos(num_tasks=2, preference=[0.5, 0.5], mu=5.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([3.0, 4.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.3869, 0.5849], dtype=float32)

    References:
      Ruchte and Grabocka, `Scalable Pareto Front Approximation for Deep Multi-Objective
      Learning <https://arxiv.org/abs/2103.13392>`_, 2021.
    """
    checks.at_least("mu", mu, 0)

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        point, length = unit(jnp.where(active, losses, 0))
        wanted = preference_or_uniform(preference, active)
        slope = away_from(point, unit(wanted)[0]) / positive(length)
        return wanted - mu * jnp.where(length > 0, slope, 0)

    return of_losses("cosmos", weigh, preference=preference)
