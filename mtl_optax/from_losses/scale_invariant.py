"""Scale-invariant weighting: the sum of the logarithms of the losses.

Also known as the analytic optimum of uncertainty weighting (UW-O, Elich et al. 2024,
appendix A1.3): minimising L/sigma + log sigma over sigma gives sigma = L.
"""

import jax

from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import of_losses, positive
from mtl_optax.core.weighting import Weighting


@losses_method
def scale_invariant() -> Weighting:
    r"""Divides each task gradient by its loss: descends the sum of log losses.

    .. math:: d = \sum_t \frac{g_t}{L_t} = \nabla \sum_t \log L_t

    Args:
      num_tasks: T, a Python int.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. It does not depend on the scale of any loss.
      Output scale: sum of gradients, each relative to its loss. T=1 gives g/L.

    Raises:
      ValueError: if `losses=` is missing or has another length; for gradients that are
        not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: the update does not depend on the scale of any loss.

    Guarantee: the same update whatever positive constants the losses are multiplied
    with, under any optimiser after it.

    When not to use it: with losses that go to zero or below: the weight of a task
    grows as its loss falls (losses count as at least 1e-19 and at most 9e18, in
    float32), and the noise of small losses rules the update.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.scale_invariant(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> tx.update(grads, tx.init(params), params, losses=jnp.array([0.5, 2.0]))[0]
      {'w': Array([1.5, 0.5], dtype=float32)}

    References:
      Elich et al., `Examining Common Paradigms in Multi-Task Learning
      <https://arxiv.org/abs/2311.04698>`_, 2024.
    """

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        return 1 / positive(losses)

    return of_losses("scale_invariant", weigh)
