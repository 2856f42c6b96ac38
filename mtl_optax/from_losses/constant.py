"""Linear scalarisation: fixed task weights."""

import jax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.method import losses_method
from mtl_optax.core.weighting import Weighting


@losses_method
def constant(*, weights: PerTask) -> Weighting:
    r"""Weighted sum of the task gradients with fixed weights.

    .. math:: d = \sum_t w_t \, g_t

    Args:
      num_tasks: T, a Python int.
      weights: `[T]` in sorted order of names or a dict by name, any real numbers; may
        be a tracer, so that a grid of weights runs under one `jax.vmap`. Not
        renormalised where tasks are inactive.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, into the
      gradient of the weighted loss. Output scale: that of `weights`.

    Raises:
      ValueError: if `weights` is not one number a task; for gradients that are not
        stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: none to loss scales: a loss multiplied by s pulls s times as hard.

    Guarantee: the gradient of the weighted loss; on a convex front every Pareto point
    belongs to some weights, on a concave one only its ends.

    When not to use it: if the right weights change during training, or there are too
    many tasks for a grid search.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.constant(num_tasks=2, weights=[1.0, 3.0])
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> tx.update(grads, tx.init(params), params)[0]
      {'w': Array([-2.,  3.], dtype=float32)}

    References:
      Linear scalarisation; Xin et al., `Do Current Multi-Task Optimization Methods in
      Deep Learning Even Help? <https://arxiv.org/abs/2209.11379>`_, 2022.
    """

    def update(
        gramian: None, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del gramian, extra
        return checks.task_vector("weights", weights, active.shape[0]), state

    def init(num_tasks: int) -> tuple[()]:
        checks.task_vector("weights", weights, num_tasks)
        return ()

    return Weighting(init, update, uses_gramian=False)
