"""Tchebycheff scalarisation: the worst weighted loss alone (Bowman 1976).

Where several losses are the worst at once the maximum has no derivative: we take the
mean of theirs, so that the order of the tasks does not matter. It is STCH at mu = 0.
"""

import jax

from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import above, of_losses, softmax_among
from mtl_optax.core.weighting import Weighting


@losses_method
def tchebycheff(*, preference: PerTask = None, reference: PerTask = None) -> Weighting:
    r"""Descends the largest weighted distance of a loss from the reference point.

    .. math:: d = \nabla \max_t \, p_t (L_t - z_t)

    Args:
      num_tasks: T, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name, not negative;
        None is uniform, 1/T over the active tasks.
      reference: z, `[T]` in sorted order of names or a dict by name, a point that no
        losses fall below; None is 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. Exact ties share equally: the mean of their
      :math:`p_t g_t`. Output scale: p of the worst task, 1/T if p is uniform. T=1
      gives the gradient times p.

    Raises:
      ValueError: for a `preference` or `reference` that is not `[T]`; if `losses=` is
        missing or has another length; for gradients that are not stacked, or another
        task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales, unless `preference` is chosen as their inverse.

    Guarantee: a subgradient of the maximum; every Pareto point, on a concave front too,
    is a minimum for some preference.

    When not to use it: for fast convergence: one task is trained at a time, and where
    they are level the update jumps between them; `stch` smooths that out.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.tchebycheff(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> tx.update(grads, tx.init(params), params, losses=jnp.array([1.0, 3.0]))[0]
      {'w': Array([-0.5,  0.5], dtype=float32)}

    References:
      Bowman, `On the Relationship of the Tchebycheff Norm and the Efficient Frontier of
      Multiple-Criteria Objectives <https://doi.org/10.1007/978-3-642-87563-2_5>`_,
      1976.
    """

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        slopes = preference_or_uniform(preference, active)
        worst = softmax_among(slopes * above(losses, reference), active, 0.0)
        return slopes * worst

    given = {"preference": preference, "reference": reference}
    return of_losses("tchebycheff", weigh, **given)
