r"""IMTL-L: learned scales that make all scaled losses equal (Liu et al. 2021).

Follows the loss half of IMTL, :math:`e^s L - s`. LibMTL always couples it with IMTL-G;
here the two are apart, as in TorchJD. Both train s with the network's optimiser; here
it has one of its own, because an aggregator cannot reach the network's.
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
def imtl_l(
    *, optimizer: optax.GradientTransformation | None = None, init: PerTask = 0.0
) -> Weighting:
    r"""Impartial losses: each loss is scaled towards 1 by a learned factor.

    .. math::
      d = \sum_t e^{s_t} g_t, \quad s_t \text{ descends } e^{s_t} L_t - s_t

    The fixed point is :math:`e^{s_t} = 1 / L_t`.

    Args:
      num_tasks: T, a Python int.
      optimizer: optax optimiser of the scalars s; None is `optax.adam(0.025)`.
      init: initial s, a number or `[T]` in sorted order of names or a dict by name.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. The weights used are those before this step's
      update of s. Heads are weighted too, unless wrapped in `on_shared`. Output scale:
      sum of weights 1 at the start. T=1 gives the gradient times its weight.

    Raises:
      ValueError: if `losses=` is missing or has another length; for gradients that are
        not stacked, or another task count.

    Cost: one backward pass with lazy gradients; state of 4 numbers a task with Adam.

    Invariances: none to loss scales at once; with losses that are constant or change
    slowly s takes them out in time.

    Guarantee: none on conflicts. With constant losses the weights tend to 1 / L_t,
    which takes out the scale of each loss.

    When not to use it: with losses that are or become zero or negative: they count as
    1e-19, and s climbs for as long (losses and weights stay within 1e-19 and 9e18, in
    float32). Where scales differ much, s needs many steps, which `scale_invariant`,
    its fixed point, does not.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.imtl_l(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> update, state = tx.update(
      ...     grads, tx.init(params), params, losses=jnp.array([1.0, 2.0])
      ... )
      >>> update
      {'w': Array([0., 1.], dtype=float32)}

    References:
      Liu et al., `Towards Impartial Multi-task Learning
      <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021.
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
        losses = positive(checks.required("imtl_l", "losses", losses))
        weights = positive(jnp.exp(state.values))
        gradient = positive(weights * losses) - 1
        return weights, step_scalars(tx, gradient, state, active)

    return Weighting(scalars_from(tx, init), update, uses_gramian=False)
