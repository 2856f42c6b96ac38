r"""MetaBalance: auxiliary gradients brought towards the length of the primary task's.

Written from the paper alone (He et al. 2022, Algorithm 1); the authors' code is under a
non-commercial licence (CC BY-NC 4.0). It rescales the gradients of each parameter array
by their norms on it, so that a Gramian for each leaf tells all it needs. INFERRED: the
variants compare the running means of norms, not the norms; where the primary task is
absent the last one of its own stands, and as long as it was never there the others keep
their gradients.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import index_of
from mtl_optax.core.arguments.primary_task import check_primary
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import leafwise_method
from mtl_optax.core.stacked import moved
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting

_VARIANTS = {
    "both": lambda ratio: ratio,
    "shrink": lambda ratio: jnp.minimum(ratio, 1),
    "grow": lambda ratio: jnp.maximum(ratio, 1),
}


class MetaBalanceState(NamedTuple):
    """State of MetaBalance."""

    usual_norm: TaskRows  # [T] running mean of norms, from 0, without bias correction
    seen: TaskRows  # [T] bool, whether the task was there


@leafwise_method
def metabalance(
    *,
    primary: Any = 0,
    r: ScalarOrSchedule = 0.7,
    beta: ScalarOrSchedule = 0.9,
    variant: str = "both",
) -> Weighting:
    r"""Rescales each auxiliary gradient towards the usual length of the primary one.

    .. math::
      n_t \leftarrow \beta \, n_t + (1 - \beta) \|g_t\|, \quad
      d = \sum_t \Big( r \frac{n_0}{n_t} + 1 - r \Big) g_t

    on each parameter array by itself, from n = 0, where task 0 is the primary one.

    Args:
      num_tasks: T, a Python int.
      primary: the task that the others are to help, by name, or by index in sorted
        order of names (may be a tracer).
      r: how near the lengths come, from 0, the plain sum, to 1.
      beta: how much of the running mean is kept, from 0 to 1.
      variant: "both", or "shrink" or "grow", which leave gradients as they are whose
        running mean is the smaller, or the larger, one already.
      granularity: "leaf", norms on each parameter array, as in the paper; a tree of
        labels, one norm for each block of them, or None, one over all, as in
        :func:`mtl_optax.from_weighting`, which has None for `metabalance.weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. The
      primary gradient has weight 1. A mean that is 0 stands for no length: its task
      keeps its gradient. Where the primary task is absent the others are brought to its
      last mean. Output scale: sum of T gradients about as long as the primary one. T=1
      gives the gradient itself.

    Raises:
      ValueError: for an `r` or `beta` outside [0, 1], an unknown `variant`, or a
        `primary` that is no task; in `update` for a `primary` by name, where neither
        gradients nor losses have names; for gradients that are not stacked, or another
        task count.

    Cost: at most T backward passes with lazy gradients; state of 2 numbers a task for
    each leaf, and of the T x T Gramian of each.

    Invariances: none to loss scales: with r = 1 those of the auxiliary losses drop out,
    that of the primary one sets the length of all.

    Guarantee: none on conflicts. With r = 1 and norms that do not change every
    gradient has the primary one's length on every leaf.

    When not to use it: if no task has priority, for by default the one whose name sorts
    first is the primary one. On leaves that the primary task does not use, such as
    heads of the others, where its length is 0 and their gradients are cut to 1 - r:
    wrap it in `on_shared`. Where angles matter: it looks at lengths only.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.metabalance(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.0, 1.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([3. , 7.8], dtype=float32)

    References:
      He et al., `MetaBalance: Improving Multi-Task Recommendations via Adapting
      Gradient Magnitudes of Auxiliary Tasks <https://arxiv.org/abs/2203.06801>`_, 2022.
    """
    for name, value in {"r": r, "beta": beta}.items():
        checks.at_least(name, value, 0)
        checks.at_most(name, value, 1)
    checks.one_of("variant", variant, tuple(_VARIANTS))

    def init(num_tasks: int) -> MetaBalanceState:
        check_primary(primary, num_tasks)
        zeros = jnp.zeros(num_tasks, jnp.result_type(float))
        return MetaBalanceState(zeros, jnp.zeros(num_tasks, bool))

    def update(
        gramian: jax.Array,
        state: MetaBalanceState,
        *,
        active: jax.Array,
        names: tuple[Any, ...] | None = None,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, MetaBalanceState]:
        del extra
        task = index_of("metabalance: primary", primary, names)
        norms = jnp.sqrt(jnp.diagonal(gramian)) * unit
        mean = moved(state.usual_norm, norms, jnp.asarray(1 - beta))
        mean = jnp.where(active, mean, state.usual_norm)
        seen = state.seen | active
        ratio = mean[task] / jnp.where(mean > 0, mean, 1)
        ratio = jnp.minimum(ratio, jnp.finfo(ratio.dtype).max)
        ratio = jnp.where((mean > 0) & seen[task], ratio, 1)
        weights = r * _VARIANTS[variant](ratio) + (1 - r)
        return weights, MetaBalanceState(mean, seen)

    return Weighting(init, update)
