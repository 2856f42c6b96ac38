r"""GO4Align: one weight for each group of tasks at the same stage (Shen et al. 2024).

Their code carries no licence: written from its formulas only. As there, the exponent is
minus the loss, so that large losses are weighted down. k-means there starts at random;
of T numbers it has an exact solution, found here by dynamic programming over the sorted
ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import losses_method
from mtl_optax.core.scalarization import positive, softmax_among
from mtl_optax.core.solvers.one_dim_clusters import cluster_means
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class GO4AlignState(NamedTuple):
    """State of GO4Align."""

    log_shares: TaskRows  # [T] log p, before it is normalised over the active tasks


@losses_method
def go4align(*, num_groups: int, step_size: ScalarOrSchedule = 1e-4) -> Weighting:
    r"""Brings losses to one size, then gives tasks of about one weight exactly one.

    .. math::
      p \leftarrow \frac{p \odot e^{-\eta L}}{\sum_s p_s e^{-\eta L_s}}, \quad
      v_t = p_t \frac{\sum_s L_s}{L_t}, \quad d = \sum_t \bar v_{k(t)} \, g_t

    where p starts equal, and :math:`\bar v_{k(t)}` is the mean of the group of task t
    by k-means of the T numbers v into K groups.

    Args:
      num_tasks: T, a Python int.
      num_groups: K, a Python int of at most T. 1 gives all tasks the mean, T each its
        own v. There are never more groups than active tasks.
      step_size: :math:`\eta`, how fast p turns away from large losses; at least 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones; its
      `update` needs `losses=` `[T]`. Equal losses have equal weights; of equally good
      groupings, that whose groups of large v are largest. The share p of an absent task
      stays as it was beside those of the others. Output scale: sum, weights 1 where all
      losses are equal. T=1 gives the gradient itself.

    Raises:
      ValueError: for a `num_groups` that is no Python int from 1 to T, or a negative
        `step_size`; if `losses=` is missing or has another length; for gradients that
        are not stacked, or another task count.

    Cost: one backward pass with lazy gradients; state of 1 number a task; K T^2 steps
    on numbers.

    Invariances: none to loss scales: single weights divide by the loss, but a group has
    one for all. A factor common to all losses leaves the weights but for `step_size`.

    Guarantee: none on conflicts. The groups are the best there are for these v.

    When not to use it: with losses that are or become zero or negative: they count as
    1e-19 (losses and v stay within 1e-19 and 9e18, in float32), and such a task is a
    group of its own. Where losses differ by orders of magnitude and K is small: the
    smallest, whose v are far apart, take a group each, and all others share one.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.go4align(num_tasks=3, num_groups=2)
      >>> params = {"w": jnp.zeros(3)}
      >>> update, state = tx.update(
      ...     {"w": jnp.eye(3)},
      ...     tx.init(params),
      ...     params,
      ...     losses=jnp.array([1.0, 2.0, 4.0]),
      ... )
      >>> np.asarray(mtl.task_weights(state)).round(4)
      array([2.3336, 0.875 , 0.875 ], dtype=float32)

    References:
      Shen et al., `GO4Align: Group Optimization for Multi-Task Alignment
      <https://arxiv.org/abs/2404.06486>`_, 2024.
    """
    num_groups = checks.static_int("num_groups", num_groups)
    checks.at_least("step_size", step_size, 0)

    def init(num_tasks: int) -> GO4AlignState:
        checks.at_most("num_groups", num_groups, num_tasks)
        return GO4AlignState(jnp.zeros(num_tasks, jnp.result_type(float)))

    def update(
        gramian: None,
        state: GO4AlignState,
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, GO4AlignState]:
        del gramian, extra
        losses = positive(checks.required("go4align", "losses", losses))
        lowered = state.log_shares - step_size * losses
        # The share of the active tasks together stays.
        gone = _log_sum(lowered, active) - _log_sum(state.log_shares, active)
        log_shares = jnp.where(active, lowered - gone, state.log_shares)
        total = jnp.sum(losses, where=active)
        values = positive(softmax_among(log_shares, active) * (total / losses))
        largest = jnp.max(values, initial=0, where=active)
        largest = jnp.where(largest > 0, largest, 1)
        means, _ = cluster_means(values / largest, active, num_groups)
        return largest * means, GO4AlignState(log_shares)

    return Weighting(init, update, uses_gramian=False)


def _log_sum(logs: jax.Array, active: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(logs, where=active)
