"""UW-SO: the softmax of the weights of `uw_o` (Kirchdorfer et al. 2024).

Written from its formula only. Losses below 0 have no meaning under it; here their tasks
wait with weight 0.
"""

import jax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import inverse, of_losses, softmax_among
from mtl_optax.core.weighting import Weighting

_EPSILON = 1e-8  # of the authors, added to every loss


@losses_method
def uw_so(*, temperature: ScalarOrSchedule = 1.0) -> Weighting:
    r"""Soft optimal uncertainty weighting: the softmax of the inverse losses.

    .. math::
      d = \sum_t w_t \, g_t, \quad
      w = \text{softmax}\Big( \frac{1}{\tau \, (L + 10^{-8})} \Big)

    with the weights held constant, so that it is not the gradient of a function of L.

    Args:
      num_tasks: T, a Python int.
      temperature: :math:`\tau`, positive; may be a tracer. A large one makes the
        weights equal, a small one gives all to the smallest loss. The authors tune it
        on each data set.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. A loss of 0 has the largest weight there is; a
      task whose loss is -1e-8 or below has weight 0, and the others what they would
      have alone. Output scale: simplex. T=1 gives the gradient itself.

    Raises:
      ValueError: for a `temperature` that is not positive; if `losses=` is missing or
        has another length; for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales: a factor common to all losses is one of the
    temperature, and other factors change the weights.

    Guarantee: none on conflicts. Weights are on the simplex and fall as the loss rises.

    When not to use it: without a search for the temperature: at tau = 1 losses far
    above 1 get equal weights, and of losses far below 1 the smallest takes all, whether
    its task needs it or not. With losses that may be negative, which have no meaning
    here.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.uw_so(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([0.5, 2.0])
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([0.8176, 0.1824], dtype=float32)

    References:
      Kirchdorfer et al., `Analytical Uncertainty-Based Loss Weighting in Multi-Task
      Learning <https://arxiv.org/abs/2408.07985>`_, 2024.
    """
    checks.positive("temperature", temperature)

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        inverses = inverse(losses + _EPSILON)
        return softmax_among(inverses, active & (inverses > 0), temperature)

    return of_losses("uw_so", weigh)
