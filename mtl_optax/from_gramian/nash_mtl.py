"""Nash-MTL: the Nash bargaining solution between tasks (Navon et al. 2022).

The authors linearise a concave term and call a cone solver on the host, up to 20 times,
warm started; the system is also the optimum of a strictly convex function, which
Newton's method finds on the device without state. They clip the result to norm 1 by
default (`max_norm=1`); the unclipped norm is always sqrt(T).
"""

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg, nash_solver
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def nash_mtl(*, max_norm: ScalarOrSchedule = None) -> Weighting:
    r"""Nash bargaining: the step that maximises the product of all tasks' gains.

    .. math:: (K a)_t = 1 / a_t, \quad a > 0, \quad d = \sum_t a_t \, g_t

    Args:
      num_tasks: T, a Python int.
      max_norm: the update is scaled down to at most this norm; None leaves it at
        sqrt(T). The authors' default is 1.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. It does
      not depend on the scale of any loss. Output scale: norm sqrt(T), whatever the
      gradients' size, so learning rates of other methods do not carry over to SGD.
      T=1 gives g/||g||.

    Raises:
      ValueError: for a negative `max_norm`; for gradients that are not stacked, or
        another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; up to 50
    T x T factorisations.

    Invariances: the update does not depend on the scale of any loss.

    Guarantee: descends every task, and does not depend on the scale of any loss, unless
    the point is Pareto stationary; there d is zero.

    When not to use it: near Pareto-stationary points no solution exists; the update is
    exactly zero there, but close to them weights grow large, and an optimiser without
    normalisation steps by sqrt(T) all the same. A task with zero gradient has weight 0.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.nash_mtl(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([1., 1.], dtype=float32)

    References:
      Navon et al., `Multi-Task Learning as a Bargaining Game
      <https://arxiv.org/abs/2202.01017>`_, 2022.
    """
    if max_norm is not None:
        checks.at_least("max_norm", max_norm, 0)

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        weights = nash_solver.bargain(gramian, active)
        if max_norm is not None:
            # Summed over unit gradients, so that tiny ones do not underflow.
            cosines, norms = linalg.cosine_matrix(gramian)
            units = weights * norms
            along = jnp.matmul(cosines, units, precision=lax.Precision.HIGHEST)
            norm = jnp.sqrt(jnp.maximum(jnp.sum(units * along), 0))
            weights *= jnp.where(norm > max_norm, max_norm / norm, 1)
        return weights / unit, state

    return Weighting(no_state(), update)
