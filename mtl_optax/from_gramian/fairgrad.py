"""FairGrad: alpha-fair resource allocation between tasks (Ban and Ji 2024).

The authors solve the system with a least-squares routine on the host, which stops early
on tiny or badly scaled gradients; it is also the optimum of a strictly convex function,
which Newton's method finds on the device. Their trainer multiplies the result by T.
"""

import numbers

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import nash_solver
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def fairgrad(*, alpha: ScalarOrSchedule = 1.0) -> Weighting:
    r"""Alpha-fair gradient: the step that shares progress fairly between tasks.

    .. math:: (K w)_t = w_t^{-1/\alpha}, \quad w > 0, \quad d = \sum_t w_t \, g_t

    Args:
      num_tasks: T, a Python int.
      alpha: kind of fairness, at least 0 and finite; may be a tracer. 1 is Nash-MTL.
        Exactly 0 is linear scalarisation, weights of 1 each (TorchJD's are 1/T): what
        :math:`w_t = (K w)_t^{-\alpha}` says at 0. Towards 0 the update tends to the
        same sum of the gradients, but projected like `dualproj` where the sum
        conflicts with a task; for large alpha to that of
        MGDA over its squared norm, the same gain of 1 for all tasks that bind.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: times s^((1-alpha)/(1+alpha)) for gradients s times as long. So it is
      proportional to them for alpha near 0 only, of fixed length for alpha = 1, and
      grows as they shrink above. T=1 gives g / ||g||^(2 alpha/(1+alpha)).

    Raises:
      ValueError: for an `alpha` that is negative or not finite; for gradients that are
        not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; up to 50
    T x T factorisations.

    Invariances: none to loss scales, but for alpha = 1, where the update does not
    depend on them.

    Guarantee: with alpha above 0 descends every task, unless the point is Pareto
    stationary; there d is zero.

    When not to use it: close to Pareto-stationary points weights grow large, and for
    alpha of 1 or more an optimiser without normalisation does not come to rest. The
    equation holds to 1e-4 in float32 for alpha from 0.5 to 10, and is solved more and
    more coarsely outside, but at exactly 0. A task with zero gradient has weight 0 (but
    at alpha 0).

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.fairgrad(num_tasks=2, alpha=2.0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([1.    , 0.7937], dtype=float32)

    References:
      Ban and Ji, `Fair Resource Allocation in Multi-Task Learning
      <https://arxiv.org/abs/2402.15638>`_, 2024.
    """
    if not (isinstance(alpha, numbers.Real) and alpha == 0):
        checks.positive("alpha", alpha)

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        fair = jnp.asarray(alpha, gramian.dtype)
        # Solved at 1 where it is 0, so that no branch is needed and all stays finite.
        bargained = nash_solver.bargain(gramian, active, jnp.where(fair > 0, fair, 1))
        bargained *= unit ** (-2 * fair / (1 + fair))
        return jnp.where(fair > 0, bargained, active), state

    return Weighting(no_state(), update)
