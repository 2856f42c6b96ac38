r"""PCD: priority-constrained descent (Varam and AlHajri 2026).

The authors enumerate the sets of constraints that may hold with equality; here one
small quadratic program gives their answer for any number of tasks, and tells whether
there is one. They add 1e-8 to the mean squares; here a task is divided by its own size
however small that is.
"""

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import index_of, sorted_names, values_of
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp
from mtl_optax.core.weighting import Weighting


class PCDState(NamedTuple):
    """State of PCD."""

    mean_square: jax.Array  # [T] running mean of squared norms, bias-corrected
    correction: jax.Array  # [T] 1 - beta^k after k steps with the task


def _thresholds(tau: Any, primary: Any, num_tasks: int) -> jax.Array:
    """`tau` as `[T]`, from one number, `[T]`, or `[T - 1]` without the primary task."""
    tau = jnp.asarray(tau, jnp.result_type(float))
    if tau.shape == (num_tasks - 1,):
        task, none = jnp.arange(num_tasks), jnp.zeros(1, tau.dtype)
        before, after = jnp.append(tau, none), jnp.append(none, tau)
        tau = jnp.where(task < primary, before, jnp.where(task > primary, after, 0))
    if tau.shape not in ((), (num_tasks,)):
        raise ValueError(
            f"pcd: tau must be a number, or one a task: shape ({num_tasks},), or "
            f"({num_tasks - 1},) without the primary task; got shape {tau.shape}."
        )
    return tau


def _by_name(tau: Any, primary: Any) -> tuple[Any, Any]:
    """`tau` in order, and the names of all tasks if it came by name."""
    if not isinstance(tau, Mapping):
        checks.at_least("tau", tau, 0)
        return tau, None
    for value in tau.values():
        checks.at_least("tau", value, 0)
    values, own = values_of(tau, "tau")
    named = own if not isinstance(primary, str) else {*own, primary}
    return values, sorted_names(named)


def _leads(primary: Any, active: jax.Array) -> jax.Array:
    """The primary task, or the first active one where that is inactive, `[T]` bool."""
    primary_task = active & (jnp.arange(active.shape[0]) == primary)
    first = active & (jnp.cumsum(active) == 1)
    return jnp.where(jnp.any(primary_task), primary_task, first)


def _follow(
    state: PCDState, norms: jax.Array, beta: Any, active: jax.Array
) -> PCDState:
    """Running means of the active tasks, one step on."""
    correction = beta * state.correction + (1 - beta)
    rate = jnp.where(correction > 0, (1 - beta) / correction, 1)
    mean_square = state.mean_square + rate * (norms**2 - state.mean_square)
    return PCDState(
        jnp.where(active, mean_square, state.mean_square),
        jnp.where(active, correction, state.correction),
    )


@jax.jit
def _least_change(
    cosines: jax.Array, rows: jax.Array, missing: jax.Array, scale: jax.Array
) -> jax.Array:
    """Multipliers of the shortest x with `<u_j, x> >= missing_j`; 0 if there is no x.

    The unit vectors u are those of `rows`. With `h ~ missing`, y the minimiser of
    `y'Cy + (h'y - 1)^2` over `y >= 0`, and the minimum `1 - h'y`, x is proportional to
    `sum_j y_j u_j / (1 - h'y)`. If and only if there is no x, the minimum is 0 and the
    vectors cancel (Lawson and Hanson's least distance programming).
    """
    floor = linalg.noise_floor(missing.shape[0], missing.dtype)
    missing = jnp.where(rows, missing, 0)
    size = jnp.sqrt(jnp.sum(jnp.maximum(missing, 0) ** 2))
    size = jnp.maximum(size, floor * scale)
    h = missing / jnp.where(size > 0, size, 1)
    matrix = linalg.among(cosines, rows) + h[:, None] * h[None, :]
    y = nonnegative_qp(matrix, -h)
    minimum = 1 - jnp.sum(h * y)
    solvable = (minimum > floor) & ~linalg.cancels(y, cosines)
    return jnp.where(solvable, size * y / jnp.where(solvable, minimum, 1), 0)


@gramian_method
def pcd(
    *,
    primary: Any = 0,
    tau: ScalarOrSchedule = 0.02,
    beta: ScalarOrSchedule = 0.999,
) -> Weighting:
    r"""Follows the primary task, as far as a little progress on every other one allows.

    .. math::
      \tilde d = \arg\min_d \|d - \tilde g_1\| \quad \text{s.t.} \quad
      \langle \tilde g_t, d \rangle \ge \tau_t \|\tilde g_t\|^2 \text{ for } t \ge 2,
      \qquad d = \frac{\|g_1\|}{\|\tilde d\|} \tilde d

    where :math:`\tilde g_t` is the gradient divided by the root of the running mean of
    its squared norm.

    Args:
      num_tasks: T, a Python int.
      primary: the task to follow, :math:`g_1` above, by name, or by index in sorted
        order of names (may be a tracer); where it is inactive, the first active one.
      tau: the progress asked for, a number, or one a task: `[T]` in sorted order of
        names or a dict by name (the primary's is not read); without the primary task
        `[T - 1]`, or a dict if `primary` is a name. 0 only takes conflicts out.
      beta: decay of the running means, which are bias-corrected task by task.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: the norm of the primary gradient. T=1 gives the gradient itself. Where no
      vector meets all constraints (within rounding, :math:`4 T \epsilon` of squares),
      the primary gradient itself; where it is zero, or the constraints leave nothing of
      it, zero. A secondary gradient that is zero sets no constraint.

    Raises:
      ValueError: for a negative `tau` or `beta`, a `tau` of another shape, or a
        `primary` that is no task; in `update` for a `primary` by name, where neither
        gradients nor losses have names; for gradients that are not stacked, or another
        task count.

    Cost: T backward passes; state of 2 numbers a task; one T x T quadratic program.

    Invariances: the direction does not depend on the scale of any loss. The primary
    task is another than the rest.

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
    tau, own = _by_name(tau, primary)

    def init(num_tasks: int) -> PCDState:
        _thresholds(tau, 0, num_tasks)
        if isinstance(primary, numbers.Real):
            checks.static_int("primary", primary, 0)
            checks.at_most("primary", primary, num_tasks - 1)
        elif not isinstance(primary, str) and jnp.shape(primary) != ():
            raise ValueError(f"primary must be one task; got {primary!r}.")
        zeros = jnp.zeros(num_tasks, jnp.result_type(float))
        return PCDState(zeros, jnp.copy(zeros))

    def update(
        gramian: jax.Array,
        state: PCDState,
        *,
        active: jax.Array,
        names: tuple[Any, ...] | None = None,
        **extra: object,
    ) -> tuple[jax.Array, PCDState]:
        del extra
        task = index_of("pcd: primary", primary, names)
        cosines, norms = linalg.cosine_matrix(gramian)
        state = _follow(state, norms, beta, active)
        usual = jnp.sqrt(jnp.where(state.mean_square > 0, state.mean_square, 1))
        lengths = jnp.where(active, norms / usual, 0)
        longest = jnp.max(lengths)
        lengths /= jnp.where(longest > 0, longest, 1)

        first = _leads(task, active)
        along = jnp.where(first, lengths, 0)  # the primary task, in unit vectors
        asked = _thresholds(tau, task, norms.shape[0]) * lengths
        missing = asked - linalg.dot(cosines, along)
        others = active & ~first & (norms > 0)
        lift = _least_change(cosines, others, missing, jnp.sum(along))
        weights = (along + lift) / jnp.where(norms > 0, norms, 1)

        keep = ~linalg.cancels(weights, gramian) & jnp.any(along > 0)
        square = jnp.sum(weights * linalg.dot(gramian, weights))
        length = jnp.sum(jnp.where(first, norms, 0))
        weights *= length / jnp.sqrt(jnp.where(keep, square, 1))
        return jnp.where(keep, weights, 0), state

    return Weighting(init, update, names=own)
