"""PBI: penalty-based boundary intersection (Zhang and Li 2007, section II.C).

TorchJD requires a preference, and adds 1e-12 under the root to have a gradient where
the losses lie on the preferred direction; here the penalty's gradient is exactly zero
there.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import above, away_from, of_losses, unit
from mtl_optax.core.weighting import Weighting


@losses_method
def pbi(
    *,
    preference: PerTask = None,
    theta: ScalarOrSchedule = 5.0,
    reference: PerTask = None,
) -> Weighting:
    r"""Descends along a preferred direction of losses, and pulls towards it.

    .. math::
      d = \nabla (d_1 + \theta d_2), \quad d_1 = \langle L - z, \hat p \rangle, \quad
      d_2 = \| L - z - d_1 \hat p \|, \quad \hat p = p / \|p\|

    so that the weights are :math:`\hat p + \theta \, (L - z - d_1 \hat p) / d_2`.

    Args:
      num_tasks: T, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name, not negative, the
        direction in which losses are to lie; None is uniform.
      theta: weight of the distance from it, at least 0; may be a tracer. The paper
        takes 5; 0 is the weighted sum.
      reference: z, `[T]` in sorted order of names or a dict by name, a point that no
        losses fall below; None is 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. Where the losses lie on the direction, to within
      rounding, the weights are :math:`\hat p`. Output scale: weights of norm
      sqrt(1 + theta^2). T=1 gives the gradient itself.

    Raises:
      ValueError: for a negative `theta`, or a `preference` or `reference` that is not
        `[T]`; if `losses=` is missing or has another length; for gradients that are
        not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales: the preference is a direction between raw losses.

    Guarantee: the gradient of the scalar. Weights of tasks that are ahead of the
    preference may be negative: their losses are driven up.

    When not to use it: if no task may be harmed, or if the losses have no common
    scale: the direction is one between raw losses. The pull does not fade near the
    direction, so the update chatters across it, the more the larger theta is.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.pbi(num_tasks=2, preference=[3.0, 4.0], theta=1.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 0.5])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([1.4, 0.2], dtype=float32)

    References:
      Zhang and Li, `MOEA/D: A Multiobjective Evolutionary Algorithm Based on
      Decomposition <https://doi.org/10.1109/TEVC.2007.892759>`_, 2007.
    """
    checks.at_least("theta", theta, 0)

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        losses = above(losses, reference)
        point, _ = unit(jnp.where(active, losses, 0))
        axis, _ = unit(preference_or_uniform(preference, active))
        aside, _ = unit(away_from(axis, point))
        return axis + theta * aside

    return of_losses("pbi", weigh, preference=preference, reference=reference)
