"""Scale-invariant weighting: the sum of the logarithms of the losses.

Also known as the analytic optimum of uncertainty weighting (Elich et al. 2024, appendix
A1.3): minimising L/sigma + log sigma over sigma gives sigma = L. With 1e-8 added to
each loss it is `uw_o`.
"""

import jax

from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import above, inverse, of_losses
from mtl_optax.core.weighting import Weighting


@losses_method
def scale_invariant(*, min_losses: PerTask = None) -> Weighting:
    r"""Divides each task gradient by its loss: descends the sum of log losses.

    .. math:: d = \sum_t \frac{g_t}{D_t} = \nabla \sum_t \log D_t, \quad D = L - b

    over the tasks whose loss is above its bound b; the others have weight 0.

    Args:
      num_tasks: T, a Python int.
      min_losses: b, `[T]` in sorted order of names or a dict by name, a lower bound of
        each loss; None is 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. It does not depend on the scale of any loss.
      A task at its bound, or below, has weight 0.
      Output scale: sum of gradients, each relative to its loss. T=1 gives g/L.

    Raises:
      ValueError: for `min_losses` that are not `[T]`; if `losses=` is missing or has
        another length; for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: the update does not depend on the scale of any loss (with `min_losses`
    scaled alike).

    Guarantee: the same update whatever positive constants the losses are multiplied
    with, under any optimiser after it.

    When not to use it: with losses that go to zero: the weight of a task grows as its
    loss falls (D counts as at least 1e-19 and at most 9e18, in float32), and the noise
    of small losses rules the update. With losses that may be negative, without their
    bound as `min_losses`: a loss below its bound has no logarithm, so that its task
    waits, with weight 0, until it rises above.

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
        return inverse(above(losses, min_losses))

    return of_losses("scale_invariant", weigh, min_losses=min_losses)
