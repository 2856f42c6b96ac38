"""DualProj: the mean gradient projected on the dual cone (Lopez-Paz and Ranzato 2017).

The projection of Gradient Episodic Memory, with all tasks as its memory, which TorchJD
lists under this name beside UPGrad. TorchJD solves it on the host with the Gramian
normalised by its trace plus 1e-4 on the diagonal; here it is exact, at any norm ratio.
`reg_eps=1e-4` reproduces TorchJD.
"""

import jax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers.dual_cone import regularised_projection
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def dualproj(
    *, preference: PerTask = None, reg_eps: ScalarOrSchedule = 0.0
) -> Weighting:
    r"""The mean gradient, moved as little as it takes to harm no task.

    .. math::
      d = \Pi_{C} \Big( \sum_t p_t \, g_t \Big), \quad
      C = \{ d : \langle g_s, d \rangle \ge 0 \text{ for all } s \}

    For two tasks, with p = (1, 1), this is DCGD "projection" (Hwang and Lim 2024).

    Args:
      num_tasks: T, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name, not negative;
        None is uniform, 1/T over the active tasks.
      reg_eps: regularisation of the trace-normalised Gramian; 0 is exact. Above 0 a
        Gramian of trace below 1e-4 counts as zero, as in TorchJD.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: mean, and the mean itself where it conflicts with no task. T=1 gives the
      gradient itself. It is exactly zero where the projection is.

    Raises:
      ValueError: for a negative `reg_eps`, or a `preference` that is not `[T]`; for
        gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; one
    quadratic program of size T, a T-th of UPGrad's.

    Invariances: none to loss scales: the cone does not depend on them, but the mean
    that is projected on it does.

    Guarantee: never conflicts with any task, at any ratio of gradient norms, to
    rounding, as :func:`mtl_optax.upgrad` does.

    When not to use it: if one loss is much larger than the others and all are to
    train: the mean is then the largest gradient, and a task that conflicts with it
    gains nothing (of two tasks, exactly), where UPGrad lets it gain a little. With
    `reg_eps` above 0 the promise is lost.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.dualproj(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[2.0, 0.0], [-1.0, 1.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.5, 0.5], dtype=float32)

    References:
      Lopez-Paz and Ranzato, `Gradient Episodic Memory for Continual Learning
      <https://arxiv.org/abs/1706.08840>`_, 2017. Quinton and Rey, `Jacobian Descent for
      Multi-Objective Optimization <https://arxiv.org/abs/2406.16232>`_, 2024.
    """
    checks.at_least("reg_eps", reg_eps, 0)

    def update(
        gramian: jax.Array, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        mean = preference_or_uniform(preference, active)
        return regularised_projection(gramian, mean, reg_eps), state

    return Weighting(no_state(preference=preference), update)
