"""UW-O: uncertainty weighting at the analytic optimum of its variances.

Follows the weights of Kirchdorfer et al. (2024), one over each loss plus 1e-8. So its
update is that of `scale_invariant` with each loss raised by `eps`, and with `eps=0` the
same to the bit. Theirs leave a loss below 0 a negative weight; here it waits.
"""

import jax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import inverse, of_losses
from mtl_optax.core.weighting import Weighting


@losses_method
def uw_o(*, eps: ScalarOrSchedule = 1e-8) -> Weighting:
    r"""Divides each task gradient by its loss, raised by a little.

    .. math:: d = \sum_t \frac{g_t}{L_t + \epsilon}

    Args:
      num_tasks: T, a Python int.
      eps: :math:`\epsilon`, at least 0; 0 makes it
        :func:`mtl_optax.scale_invariant`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. A task whose loss is -eps or below has weight 0,
      and waits until it rises above. Output scale: sum of gradients, each relative to
      its loss. T=1 gives g / (L + eps).

    Raises:
      ValueError: for a negative `eps`; if `losses=` is missing or has another length;
        for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: the update does not depend on the scale of any loss, for losses far
    above `eps`.

    Guarantee: none on conflicts; the gradient of the sum of log (L + eps).

    When not to use it: where `scale_invariant` says: as a loss goes to 0 its weight
    grows, here up to 1 / eps, and its noise rules the update. With losses that may be
    negative, which have no meaning here; give `scale_invariant` their lower bound.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.uw_o(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> tx.update(grads, tx.init(params), params, losses=jnp.array([0.5, 2.0]))[0]
      {'w': Array([1.5, 0.5], dtype=float32)}

    References:
      Kirchdorfer et al., `Analytical Uncertainty-Based Loss Weighting in Multi-Task
      Learning <https://arxiv.org/abs/2408.07985>`_, 2024.
    """
    checks.at_least("eps", eps, 0)

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        return inverse(losses + eps)

    return of_losses("uw_o", weigh)
