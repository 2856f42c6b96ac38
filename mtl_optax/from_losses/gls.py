"""GLS: the geometric mean of the losses (Chennupati et al. 2019, MultiNet++).

Computed in logarithms, since the product under- or overflows for many tasks. LibMTL
differentiates the same mean, but the weights it returns are not those of its gradient.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import above, of_losses, positive
from mtl_optax.core.weighting import Weighting


@losses_method
def gls(*, min_losses: PerTask = None) -> Weighting:
    r"""Geometric loss strategy: descends the geometric mean of the losses.

    .. math::
      d = \sum_t \frac{M}{T \, D_t} \, g_t, \quad M = \Big( \prod_t D_t \Big)^{1/T},
      \quad D = L - b

    over the tasks whose loss is above its bound b; the others have weight 0.

    Args:
      num_tasks: T, a Python int.
      min_losses: b, `[T]` in sorted order of names or a dict by name, a lower bound of
        each loss; None is 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The direction does not depend on the scale of any
      loss. A task at its bound, or below, has weight 0, and the others what they would
      have alone. Output scale: mean of the gradients, if all losses are equal; that of
      M in general. T=1 gives the gradient itself.

    Raises:
      ValueError: for `min_losses` that are not `[T]`; if `losses=` is missing or has
        another length; for gradients that are not stacked, or another task count.

    Cost: one backward pass with lazy gradients, no state of its own.

    Invariances: the direction does not depend on the scale of any loss.

    Guarantee: the gradient of M, so descent for M, whatever becomes of single tasks.

    When not to use it: with losses that may be negative, without their bound as
    `min_losses`: a loss below its bound has no logarithm, so that its task waits, with
    weight 0, until it rises above. Just above the bound weights grow as 1/D (D counts
    as at least 1e-19 and at most 9e18, in float32), and the task takes nearly all.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.gls(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 4.0])
      ... )
      >>> np.asarray(update["w"]).round(4)
      array([0.75, 0.25], dtype=float32)

    References:
      Chennupati et al., `MultiNet++: Multi-Stream Feature Aggregation and Geometric
      Loss Strategy for Multi-Task Learning <https://arxiv.org/abs/1904.08492>`_, 2019.
    """

    def weigh(losses: jax.Array, active: jax.Array) -> jax.Array:
        distance = above(losses, min_losses)
        logs = jnp.log(positive(distance))
        share = preference_or_uniform(None, active & (distance > 0))
        return share * jnp.exp(jnp.sum(share * logs) - logs)

    return of_losses("gls", weigh, min_losses=min_losses)
