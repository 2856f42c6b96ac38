"""The mean of the task gradients, the unitary scalarisation divided by T."""

import jax

from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.method import losses_method
from mtl_optax.core.weighting import Weighting, no_state


@losses_method
def mean() -> Weighting:
    r"""Mean of the task gradients, weight 1/T each.

    .. math:: d = \frac{1}{T} \sum_t g_t

    Args:
      num_tasks: T, a Python int.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, into
      their mean; over the active tasks only, where `active` is passed. Output scale:
      mean.

    Raises:
      ValueError: for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales: a loss multiplied by s pulls s times as hard.

    Guarantee: the gradient of the mean loss, so descent for the mean, whatever becomes
    of single tasks.

    When not to use it: as `unitary`, from which it differs by a factor T in the
    learning rate (none under Adam).

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.mean(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> tx.update(grads, tx.init(params), params)[0]
      {'w': Array([0. , 0.5], dtype=float32)}

    References:
      The baseline of every multi-task paper; see :func:`mtl_optax.unitary`.
    """

    def update(
        gramian: None, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del gramian, extra
        return preference_or_uniform(None, active), state

    return Weighting(no_state(), update, uses_gramian=False)
