"""CAGrad: conflict-averse gradient descent (Liu et al. 2021, Algorithm 1).

The authors solve the dual on the simplex with SciPy, or, in their code for
reinforcement learning, with 20 steps on logits; here a handful of small exact problems
on the device. Their code divides the result by 1+c^2, which Algorithm 1 does not; that
is `rescale=1`, the default there, in LibMTL and in the code of Navon et al. Where 0
lies in the hull of the gradients the paper's dual is undefined; there we return the
point nearest to the mean gradient that harms no task.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.rescale import check_rescale, divisor
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import cagrad_solver
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def cagrad(
    *, c: ScalarOrSchedule = 0.4, rescale: Any = 1, preference: PerTask = None
) -> Weighting:
    r"""Conflict-averse gradient: the best step for the worst task, near the mean.

    .. math::
      d = \arg\max_{d} \min_t \langle g_t, d \rangle
      \quad \text{s.t.} \quad \|d - g_0\| \le c \|g_0\|, \quad g_0 = \sum_t p_t g_t

    Args:
      num_tasks: T, a Python int.
      c: radius of the ball relative to the mean gradient, at least 0; may be a tracer,
        or a function of the step count, as in optax. 0 is the mean gradient exactly;
        below 1 the limit points are those of the mean loss; a large c approaches the
        direction of MGDA.
      rescale: 0 returns d, 1 divides it by 1+c^2 (the authors' code), 2 by 1+c.
      preference: p, `[T]` in sorted order of names or a dict by name; None is uniform,
        1/T over the active tasks.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: mean (times at most (1+c)/(1+c^2)). T=1 gives (1+c)/(1+c^2) times the
      gradient. A task with zero gradient sets no constraint.

    Raises:
      ValueError: for a negative `c`, an unknown `rescale`, or a `preference` that is
        not `[T]`; for gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; a few
    T x T factorisations.

    Invariances: none to loss scales: the ball is one around the mean gradient.

    Guarantee: for c < 1 fixed points are stationary points of the mean loss; the worst
    task improves as fast as any step in the ball allows, which may still be a loss.

    When not to use it: if losses differ in scale by design and the larger ones are to
    rule: like the mean gradient, around which it stays, d follows the largest gradient,
    but it lifts the smallest.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.cagrad(num_tasks=2, c=0.5)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.2, 0.4], dtype=float32)

    References:
      Liu et al., `Conflict-Averse Gradient Descent for Multi-task Learning
      <https://arxiv.org/abs/2110.14048>`_, 2021.
    """
    checks.at_least("c", c, 0)
    check_rescale(rescale)

    def update(
        gramian: jax.Array, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        anchor = preference_or_uniform(preference, active)
        radius = jnp.asarray(c, gramian.dtype)
        weights = cagrad_solver.cagrad_weights(gramian, anchor, radius, active)
        return weights / divisor(rescale, radius), state

    return Weighting(no_state(preference=preference), update)
