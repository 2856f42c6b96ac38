r"""Balancer: shares of the gradient for weights of losses (Défossez et al. 2022).

The loss balancer of EnCodec, READ in its public code (`balancer.py`, MIT). As there the
norm is followed by a bias-corrected running mean with this step's included, and eps is
added to it. Left out: there, by default, the norm is the mean of those of the examples
in the batch, which the inner products of whole gradients do not tell; that of the
batch, the other choice there, is here. Its code has every loss in every step; here the
weights are shared among the tasks that are present.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class BalancerState(NamedTuple):
    """State of the balancer."""

    usual_norm: TaskRows  # [T] running mean, bias-corrected
    steps: TaskRows  # [T] sum of the weights in it: 1 + beta + beta^2 ...


@gramian_method
def balancer(
    *,
    weights: PerTask = None,
    total_norm: ScalarOrSchedule = 1.0,
    decay: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-12,
) -> Weighting:
    r"""Gives each task its share of the gradient's length, whatever its own length is.

    .. math::
      d = \sum_t \frac{w_t}{\sum_s w_s} \, \frac{c}{n_t + \epsilon} \, g_t

    with :math:`n_t` the running mean of :math:`\|g_t\|`, and c the total norm. Meant
    for gradients at a representation, :func:`mtl_optax.feature_task_grads`: T cheap
    passes through the heads and one through the trunk.

    Args:
      num_tasks: T, a Python int.
      weights: w, the shares, `[T]` in sorted order of names or a dict by name, at least
        0; None for equal ones. Those of the active tasks are taken to sum 1.
      total_norm: c, the length of d where all tasks agree and have their usual norms.
      decay: of the running means, from 0, where n is this step's norm, to 1, where it
        is the mean over all steps with the task.
      eps: added to the running means.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: `total_norm`, whatever the gradients' is; less where tasks disagree, and in
      a step in which norms are below their usual. T=1 gives c g / (n + eps). A task
      that had only zero gradients has weight 0, and keeps its share from the others.

    Raises:
      ValueError: for a negative `total_norm`, `decay` or `eps`, a `decay` above 1, or
        `weights` that are not `[T]`; for gradients that are not stacked, or another
        task count.

    Cost: at most T backward passes with lazy gradients, through the heads alone with
    `feature_task_grads`; state of 2 numbers a task.

    Invariances: the update does not depend on the scale of any loss (with `eps` 0).

    Guarantee: none on conflicts. With constant gradients each task adds a vector of its
    share's length.

    When not to use it: as training ends, for short gradients are made as long as long
    ones: d does not shrink with them, unless faster than the running mean. Where some
    tasks are seldom in a batch, whose mean is old. Where the whole batch's norm says
    little, since a few examples make it (EnCodec's mean over examples is not here).

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.balancer(num_tasks=2, weights=[1.0, 3.0])
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.1, 0.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.9, 0.2], dtype=float32)

    References:
      Défossez et al., `High Fidelity Neural Audio Compression
      <https://arxiv.org/abs/2210.13438>`_, 2022, section 3.4.
    """
    checks.at_least("total_norm", total_norm, 0)
    checks.at_least("decay", decay, 0)
    checks.at_most("decay", decay, 1)
    checks.at_least("eps", eps, 0)

    def init(num_tasks: int) -> BalancerState:
        checks.optional_vectors(num_tasks, weights=weights)
        zeros = jnp.zeros(num_tasks, jnp.result_type(float))
        return BalancerState(zeros, jnp.copy(zeros))

    def update(
        gramian: jax.Array,
        state: BalancerState,
        *,
        active: jax.Array,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, BalancerState]:
        del extra
        norms = jnp.sqrt(jnp.diag(gramian)) * unit
        steps = jnp.where(active, decay * state.steps + 1, state.steps)
        gap = (norms - state.usual_norm) / jnp.maximum(steps, 1)
        usual = jnp.where(active, state.usual_norm + gap, state.usual_norm)

        shares = active.astype(usual.dtype)
        if weights is not None:
            given = checks.task_vector("weights", weights, len(usual))
            shares = jnp.where(active, given, 0)
        total = jnp.sum(shares)
        shares /= jnp.where(total > 0, total, 1)
        scale = total_norm / jnp.where(usual > 0, usual + eps, 1)
        return jnp.where(usual > 0, shares * scale, 0), BalancerState(usual, steps)

    return Weighting(init, update)
