r"""PCD: priority-constrained descent (Varam and AlHajri 2026).

The authors enumerate the sets of constraints that may hold with equality; here one
small quadratic program gives their answer for any number of tasks, and tells whether
there is one. They add 1e-8 to the mean squares; here, by default, a task is divided by
its own size however small that is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import index_of
from mtl_optax.core.arguments.primary_task import (
    check_primary,
    leads,
    thresholds,
    thresholds_by_name,
)
from mtl_optax.core.arguments.schedules import NumbersOrSchedule, ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.least_change import least_change
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import Weighting


class PCDState(NamedTuple):
    """State of PCD."""

    usual_norm: TaskRows  # [T] root of the running mean of squares, bias-corrected
    correction: TaskRows  # [T] 1 - beta^k after k steps with the task


def _follow(
    state: PCDState, norms: jax.Array, beta: Any, active: jax.Array
) -> PCDState:
    """Running means of the active tasks, one step on."""
    correction = beta * state.correction + (1 - beta)
    rate = jnp.where(correction > 0, (1 - beta) / correction, 1)
    # The squares themselves may be no numbers.
    before = jnp.sqrt(jnp.maximum(1 - rate, 0)) * state.usual_norm
    usual = jnp.hypot(before, jnp.sqrt(rate) * norms)
    return PCDState(
        jnp.where(active, usual, state.usual_norm),
        jnp.where(active, correction, state.correction),
    )


@gramian_method
def pcd(
    *,
    primary: Any = 0,
    tau: NumbersOrSchedule = 0.02,
    beta: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 0.0,
) -> Weighting:
    r"""Follows the primary task, as far as a little progress on every other one allows.

    .. math::
      \tilde d = \arg\min_d \|d - \tilde g_1\| \quad \text{s.t.} \quad
      \langle \tilde g_t, d \rangle \ge \tau_t \|\tilde g_t\|^2 \text{ for } t \ge 2,
      \qquad d = \frac{\|g_1\|}{\|\tilde d\|} \tilde d

    where :math:`\tilde g_t` is the gradient divided by the root of the running mean of
    its squared norm, plus eps.

    Args:
      num_tasks: T, a Python int.
      primary: the task to follow, :math:`g_1` above, by name, or by index in sorted
        order of names (may be a tracer); where it is inactive, the first active one.
      tau: the progress asked for, a number, or one a task: `[T]` in sorted order of
        names or a dict by name (the primary's is not read); without the primary task
        `[T - 1]`, or a dict if `primary` is a name. 0 only takes conflicts out.
      beta: decay of the running means, which are bias-corrected task by task.
      eps: added to the running means, at least 0. A task whose gradients are shorter
        than its root counts as small: it asks for less than others do, and its own
        scale matters. The authors have 1e-8; the default 0 leaves no such size.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: the norm of the primary gradient. T=1 gives the gradient itself. Where no
      vector meets all constraints (within rounding, :math:`4 T \epsilon` of squares),
      the primary gradient itself; where it is zero, or the constraints leave nothing of
      it, zero. A secondary gradient that is zero sets no constraint.

    Raises:
      ValueError: for a negative `tau`, `beta` or `eps`, a `tau` of another shape, or a
        `primary` that is no task; in `update` for a `primary` by name, where neither
        gradients nor losses have names; for gradients that are not stacked, or another
        task count.

    Cost: at most T backward passes with lazy gradients; state of 2 numbers a task; one
    T x T quadratic program.

    Invariances: the direction does not depend on the scale of any loss (with `eps` 0).
    The primary task is another than the rest.

    Guarantee: descends every secondary task by its tau, if any vector does, and stays
    as near to the primary gradient as that allows. It may then ascend the primary task:
    exactly opposite gradients give, with tau above 0, the secondary direction.

    When not to use it: if no task has priority, for by default the one whose name sorts
    first is the primary one; or with several secondary tasks that conflict with one
    another, on which all constraints are dropped at once.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.pcd(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-0.6, 0.8]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.7848, 0.6198], dtype=float32)

    References:
      Varam and AlHajri, `Not All Objectives Are Born Equal: Priority-Constrained
      Descent for Hierarchical Multi-Objective Optimization
      <https://arxiv.org/abs/2606.29521>`_, 2026.
    """
    checks.at_least("beta", beta, 0)
    checks.at_least("eps", eps, 0)
    tau, own = thresholds_by_name(tau, primary)

    def init(num_tasks: int) -> PCDState:
        thresholds(tau, 0, num_tasks)
        check_primary(primary, num_tasks)
        zeros = jnp.zeros(num_tasks, jnp.result_type(float))
        return PCDState(zeros, jnp.copy(zeros))

    def update(
        gramian: jax.Array,
        state: PCDState,
        *,
        active: jax.Array,
        names: tuple[Any, ...] | None = None,
        unit: jax.Array | float = 1.0,
        **extra: object,
    ) -> tuple[jax.Array, PCDState]:
        del extra
        task = index_of("pcd: primary", primary, names)
        cosines, norms = linalg.cosine_matrix(gramian)
        state = _follow(state, norms * unit, beta, active)
        usual = jnp.hypot(state.usual_norm, jnp.sqrt(eps))
        usual = jnp.where(usual > 0, usual, 1)
        lengths = jnp.where(active, norms * unit / usual, 0)
        longest = jnp.max(lengths)
        lengths /= jnp.where(longest > 0, longest, 1)

        first = leads(task, active)
        along = jnp.where(first, lengths, 0)  # the primary task, in unit vectors
        asked = thresholds(tau, task, norms.shape[0]) * lengths
        missing = asked - linalg.dot(cosines, along)
        others = active & ~first & (norms > 0)
        lift = least_change(cosines, others, missing, jnp.sum(along))
        weights = (along + lift) / jnp.where(norms > 0, norms, 1)

        keep = ~linalg.cancels(weights, gramian) & jnp.any(along > 0)
        square = jnp.sum(weights * linalg.dot(gramian, weights))
        length = jnp.sum(jnp.where(first, norms, 0))
        weights *= length / jnp.sqrt(jnp.where(keep, square, 1))
        return jnp.where(keep, weights, 0), state

    return Weighting(init, update, names=own)
