"""accumulate_tasks: gradient accumulation that aggregates once, not at every step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import named
from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.state_guard import batched, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.trees.branches import as_before, strong, zeros_of
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree, lead
from mtl_optax.core.weighting import check_transformation


class AccumulateTasksState(NamedTuple):
    """State of accumulate_tasks."""

    micro_step: jax.Array  # [] int32, micro-batches gathered since the last update
    gathered: TaskTree  # tree of [T, *param], sum of the stacked gradients
    gathered_losses: TaskRows  # [T]
    gathered_counts: TaskRows  # [T] int32, micro-batches in which each task was active
    inner: Any  # state of the wrapped chain


def accumulate_tasks(
    tx: optax.GradientTransformation, num_tasks: int, every_k: int
) -> optax.GradientTransformationExtraArgs:
    r"""Averages each task's gradient over `every_k` micro-batches, then updates once.

    .. math:: d = \text{tx} \Big( \tfrac1k \sum_{j=1}^k g_1^{(j)}, \ldots,
      \tfrac1k \sum_{j=1}^k g_T^{(j)} \Big)

    Conflicts are decided on the gradients of the big batch, to rounding, where
    `optax.MultiSteps` after a method decides them on every micro-batch, and around one
    fails.

    Args:
      tx: the whole chain, from the method to the optimiser.
      num_tasks: T, a Python int.
      every_k: number of micro-batches, a Python int.

    Returns:
      A transformation like `tx` whose updates are zero but at every k-th call. Losses
      are averaged too. A task that was `active` in some of the micro-batches only is
      averaged over those; in none, it is inactive. Losses and `active` reach `tx` by
      name, where the tasks have names. Other extra arguments are those of the last
      micro-batch. Updates have the dtypes that `tx` gives them. Lazy gradients are
      stacked first.

    Raises:
      ValueError: for an `every_k` that is no positive Python int; for gradients that
        are not stacked, another task count, or a state of another one; for a chain
        whose state changes its shapes.

    Cost: T backward passes at every micro-batch, and two stacks of T gradients, the new
    one and the accumulator (of the parameters' dtype).

    When not to use it: if memory is short and the method sees losses only; then
    `optax.MultiSteps` after the method needs one copy.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> tx = mtl.accumulate_tasks(mtl.unitary(2), num_tasks=2, every_k=2)
      >>> params = {"w": jnp.zeros(1)}
      >>> state = tx.init(params)
      >>> update, state = tx.update({"w": jnp.array([[1.0], [2.0]])}, state, params)
      >>> update
      {'w': Array([0.], dtype=float32)}
      >>> update, state = tx.update({"w": jnp.array([[3.0], [4.0]])}, state, params)
      >>> update
      {'w': Array([5.], dtype=float32)}

    References:
      optax issue 515, the same need for differentially private gradients.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    every_k = checks.static_int("every_k", every_k)
    check_transformation("accumulate_tasks", tx)
    inner = inside(tx)

    def init(params: optax.Params) -> AccumulateTasksState:
        def zeros(x: Any) -> jax.Array:
            # Never weakly typed, or the second step would be traced anew; broadcasting
            # it keeps the sharding of x.
            zero = jnp.zeros_like(x, jnp.result_type(x))
            return jnp.broadcast_to(zero, (num_tasks, *zero.shape))

        return AccumulateTasksState(
            micro_step=jnp.zeros((), jnp.int32),
            gathered=jax.tree.map(zeros, params),
            gathered_losses=jnp.zeros(num_tasks, jnp.result_type(float)),
            gathered_counts=jnp.zeros(num_tasks, jnp.int32),
            inner=inner.init(params),
        )

    def update(
        updates: Any,
        state: AccumulateTasksState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AccumulateTasksState]:
        given = as_task_grads(updates, num_tasks, params, losses=losses, active=active)
        check_state(*_gathered(state, given.like(), num_tasks), num_tasks)
        losses, mask = given.losses, given.active
        present = jnp.ones(num_tasks, bool) if mask is None else mask

        def add(total: jax.Array, new: jax.Array) -> jax.Array:
            return total + new.astype(total.dtype)

        summed = state._replace(
            micro_step=state.micro_step + 1,
            gathered=jax.tree.map(add, state.gathered, given.stack()),
            gathered_counts=state.gathered_counts + present.astype(jnp.int32),
        )
        if losses is not None:
            total = add(state.gathered_losses, jnp.where(present, losses, 0))
            summed = summed._replace(gathered_losses=total)

        def emit(summed: AccumulateTasksState) -> Any:
            count = jnp.maximum(summed.gathered_counts, 1)

            def mean(x: jax.Array) -> jax.Array:
                return x / lead(count, x).astype(x.dtype)

            means = None if losses is None else mean(summed.gathered_losses)
            some = None if mask is None else summed.gathered_counts > 0
            new, inner_state = inner.update(
                jax.tree.map(mean, summed.gathered),
                summed.inner,
                params,
                losses=named(means, given.names),
                active=named(some, given.names),
                **extra_args,
            )
            empty = jax.tree.map(jnp.zeros_like, summed._replace(inner=()))
            inner_state = as_before(
                "The chain in accumulate_tasks", inner_state, summed.inner
            )
            return strong(new), empty._replace(inner=inner_state)

        updated, _ = jax.eval_shape(emit, summed)

        def wait(summed: AccumulateTasksState) -> Any:
            return zeros_of(updated), summed

        return lax.cond(summed.micro_step >= every_k, emit, wait, summed)

    return placed(init, update, WRAPPER)


def _gathered(
    state: AccumulateTasksState, like: optax.Params, num_tasks: int
) -> tuple[Any, Any]:
    """What the state has gathered, and the shapes of that for gradients like `like`."""
    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    rows = batched((number, number, like), num_tasks)
    return (state.gathered_counts, state.gathered_losses, state.gathered), rows
