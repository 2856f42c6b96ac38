"""Conic: the largest gain of the worst task within an angle of the mean gradient.

The problem is that of ConicGrad (Hassanpour et al. 2025), whose abstract alone was
read, neither its update nor code: the name is ours, and so is the exact solver, which
goes the way of CAGrad's. DERIVED: the solution lies on CAGrad's path of nearest points
to the mean gradient, at the level that is on the cone. INFERRED: the default angle.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers.conic_solver import conic_weights
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def conic(*, cosine: ScalarOrSchedule = 0.5, preference: PerTask = None) -> Weighting:
    r"""The best direction for the worst task within an angle of the mean gradient.

    .. math::
      d = \arg\max_d \min_t \langle g_t, d \rangle \quad \text{s.t.} \quad
      \|d\| \le \|g_0\|, \quad \langle d, g_0 \rangle \ge c \, \|g_0\|^2, \quad
      g_0 = \sum_t p_t g_t

    which, unless the point is Pareto stationary, is the longest d allowed: of length
    :math:`\|g_0\|`, within the angle of cosine c. Where the cone has the direction of
    :func:`mtl_optax.mgda`, that is the answer.

    Args:
      num_tasks: T, a Python int.
      cosine: c, from 0 to 1, of the largest angle to the mean gradient; may be a
        tracer, or a function of the step count, as in optax. 1 is the mean gradient
        exactly; 0 lets every direction pass that the mean loss does not rise in.
      preference: p, `[T]` in sorted order of names or a dict by name; None is uniform,
        1/T over the active tasks.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: the norm of the mean gradient. T=1 gives the gradient itself. A task with
      zero gradient sets no constraint. Where the mean gradient is zero, so is the
      update. At Pareto-stationary points no step helps every task: d is the nearest
      direction to the mean gradient that harms none, if the cone has it, else the step
      that harms least, shorter where that is possible.

    Raises:
      ValueError: for a `cosine` outside [0, 1] or a `preference` that is not `[T]`; for
        gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; a few
    T x T factorisations, up to twice as many as CAGrad.

    Invariances: none to loss scales: the axis of the cone follows the largest gradient.

    Guarantee: gains at least :math:`c \|g_0\|^2` for the mean loss, whose stationary
    points are the fixed points for c > 0. The worst task improves as fast as any step
    of this length and angle lets it, which for a narrow cone may still be a loss.

    When not to use it: if losses differ in scale by design and the larger ones are to
    rule: worst is the task with the smallest gain in its own unit. With a wide cone the
    length stays that of the mean gradient where all tasks hardly improve, and an
    optimiser without normalisation does not come to rest as it would with mgda.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.conic(num_tasks=2, cosine=0.8)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[3.0, 0.0], [-1.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.6325, 1.2649], dtype=float32)

    References:
      Hassanpour et al., `Fantastic Multi-Task Gradient Updates and How to Find Them In
      a Cone <https://arxiv.org/abs/2502.00217>`_, 2025, for the problem.
    """
    checks.at_least("cosine", cosine, 0)
    checks.at_most("cosine", cosine, 1)

    def update(
        gramian: jax.Array, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        axis = preference_or_uniform(preference, active)
        limit = jnp.asarray(cosine, gramian.dtype)
        return conic_weights(gramian, axis, limit, active), state

    return Weighting(no_state(preference=preference), update)
