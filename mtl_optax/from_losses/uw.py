r"""UW: weighting by learned homoscedastic uncertainty (Kendall et al. 2018).

Follows equation 7 for regression, :math:`\frac12 e^{-s} L + \frac12 s` with
:math:`s = \log \sigma^2`; LibMTL starts at s = -0.5, the code of one of the authors and
we at 0. These codes train s with the network's optimiser; here it has one of its own,
because an aggregator cannot reach the network's.
"""

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.learned import TaskScalars, scalars_from, step_scalars
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import positive
from mtl_optax.core.weighting import Weighting


@losses_method
def uw(
    *, optimizer: optax.GradientTransformation | None = None, init: PerTask = 0.0
) -> Weighting:
    r"""Uncertainty weighting: each loss is divided by a learned variance.

    .. math::
      d = \sum_t \tfrac12 e^{-s_t} g_t, \quad
      s_t \text{ descends } \tfrac12 e^{-s_t} L_t + \tfrac12 s_t

    The fixed point is :math:`e^{s_t} = L_t`, weight :math:`1 / (2 L_t)`.

    Args:
      num_tasks: T, a Python int.
      optimizer: optax optimiser of the scalars s; None is `optax.adam(0.025)`.
      init: initial s, a number or `[T]` in sorted order of names or a dict by name.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The weights used are those before this step's
      update of s. Heads are weighted too, as in the paper, unless wrapped in
      `on_shared`. Output scale: sum of weights 1/2 at the start.

    Raises:
      ValueError: if `losses=` is missing or has another length; for gradients that are
        not stacked, or another task count.

    Cost: one backward pass with lazy gradients; state of 4 numbers a task with Adam.

    Invariances: none to loss scales at once; with losses that are constant or change
    slowly s takes them out in time.

    Guarantee: none on conflicts. With constant losses the weights tend to 1 / (2 L_t),
    which takes out the scale of each loss.

    When not to use it: with losses that are or become zero or negative: they count as
    1e-19, and s falls for as long (losses and weights stay within 1e-19 and 9e18, in
    float32). Where the losses' scales differ so much that s needs thousands of steps to
    travel (a factor 1000 is 6.9 in s, 276 steps of Adam at 0.025).

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.uw(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 2.0])
      ... )
      >>> update
      {'w': Array([0. , 0.5], dtype=float32)}

    References:
      Kendall, Gal and Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses
      for Scene Geometry and Semantics <https://arxiv.org/abs/1705.07115>`_, 2018.
    """
    tx = optax.adam(0.025) if optimizer is None else optimizer

    def update(
        gramian: None,
        state: TaskScalars,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, TaskScalars]:
        del gramian, extra
        losses = positive(checks.required("uw", "losses", losses))
        weights = positive(0.5 * jnp.exp(-state.values))
        gradient = 0.5 - positive(weights * losses)
        return weights, step_scalars(tx, gradient, state, active)

    return Weighting(scalars_from(tx, init), update, uses_gramian=False)
