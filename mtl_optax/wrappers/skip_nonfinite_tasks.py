"""skip_nonfinite_tasks: one task's NaN or infinity costs that task's step, no more."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import named
from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.state_guard import batched, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.trees.task_axis import TaskRows
from mtl_optax.core.weighting import check_transformation


class SkipNonfiniteTasksState(NamedTuple):
    """State of skip_nonfinite_tasks."""

    nonfinite_counts: TaskRows  # [T] int32, steps that each task was skipped
    inner: Any  # state of the wrapped chain


def skip_nonfinite_tasks(
    tx: optax.GradientTransformation, num_tasks: int
) -> optax.GradientTransformationExtraArgs:
    r"""Makes a task inactive in every step in which its gradient or loss is not finite.

    .. math:: \text{active}_t \leftarrow \text{active}_t \wedge \text{finite}(g_t, L_t)

    Args:
      tx: a method, or a chain that begins with one.
      num_tasks: T, a Python int.

    Returns:
      A transformation like `tx` whose state counts, in `nonfinite_counts` `[T]`, how
      often each task was skipped (steps in which it was not active do not count). If
      all tasks are skipped the method's update is zero. Losses and `active` reach
      `tx` by name, where the tasks have names. Lazy gradients are stacked first.

    Raises:
      ValueError: for gradients that are not stacked, another task count, or a state of
        another one.

    Cost: one more read of the gradients; T backward passes and T copies.

    When not to use it: if a NaN should stop the run. It cannot separate tasks whose
    losses came as one array `[T]`, where a NaN spreads to all rows in the backward
    pass: return them as a dict or tuple.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.skip_nonfinite_tasks(mtl.mean(num_tasks=2), num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])}
      >>> update, state = tx.update(grads, tx.init(params), params)
      >>> update["w"], state.nonfinite_counts
      (Array([1., 2.], dtype=float32), Array([0, 1], dtype=int32))

    References:
      `optax.apply_if_finite`, which drops the whole step instead.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    check_transformation("skip_nonfinite_tasks", tx)
    inner = inside(tx)

    def init(params: optax.Params) -> SkipNonfiniteTasksState:
        counts = jnp.zeros(num_tasks, jnp.int32)
        return SkipNonfiniteTasksState(counts, inner.init(params))

    def update(
        updates: Any,
        state: SkipNonfiniteTasksState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SkipNonfiniteTasksState]:
        given = as_task_grads(updates, num_tasks, params, losses=losses, active=active)
        counts = batched(jnp.zeros((), jnp.int32), num_tasks)
        check_state(state.nonfinite_counts, counts, num_tasks)
        losses, mask = given.losses, given.active
        present = jnp.ones(num_tasks, bool) if mask is None else mask
        stacked = given.stack()
        finite = _finite_tasks(stacked, num_tasks)
        if losses is not None:
            finite &= jnp.isfinite(losses)
        new, inner_state = inner.update(
            stacked,
            state.inner,
            params,
            losses=named(losses, given.names),
            active=named(present & finite, given.names),
            **extra_args,
        )
        counts = state.nonfinite_counts + (present & ~finite).astype(jnp.int32)
        return new, SkipNonfiniteTasksState(counts, inner_state)

    return placed(init, update, WRAPPER)


def _finite_tasks(stacked: optax.Updates, num_tasks: int) -> jax.Array:
    finite = jnp.ones(num_tasks, bool)
    for leaf in jax.tree.leaves(stacked):
        finite &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
    return finite
