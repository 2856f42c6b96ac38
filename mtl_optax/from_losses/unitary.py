"""Unitary scalarisation: the plain sum of the task gradients.

Kurin et al. 2022: with the regularisation that single-task training uses, the plain sum
matches specialised optimisers. Any other method should be compared with it first.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.method import losses_method
from mtl_optax.core.weighting import Weighting, no_state


@losses_method
def unitary() -> Weighting:
    r"""Sum of the task gradients, weight 1 each.

    .. math:: d = \sum_t g_t

    Args:
      num_tasks: T, a Python int.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, into the
      gradient of the summed loss; the same to rounding as `jax.grad` of the sum.
      Output scale: sum.

    Raises:
      ValueError: for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales: a loss multiplied by s pulls s times as hard.

    Guarantee: the gradient of the summed loss, so descent for the sum, whatever becomes
    of single tasks.

    When not to use it: if the scales of the losses differ by orders of magnitude and
    nobody will tune weights; the largest loss then owns the shared parameters, with
    Adam too.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.unitary(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> tx.update(grads, tx.init(params), params)[0]
      {'w': Array([0., 1.], dtype=float32)}

    References:
      Kurin et al., `In Defense of the Unitary Scalarization for Deep Multi-Task
      Learning <https://arxiv.org/abs/2201.04122>`_, 2022.
    """

    def update(
        gramian: None, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del gramian, extra
        return active.astype(jnp.result_type(float)), state

    return Weighting(no_state(), update, uses_gramian=False)
