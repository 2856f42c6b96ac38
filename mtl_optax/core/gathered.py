"""Gradients of several micro-batches, gathered in one of two ways.

Where the weights of a chain are known before the gradients are, a micro-batch without
`active` is weighted at once: one sum `[*param]`. Else its gradients are added to a
stack `[T, *param]`, since each task is looked at, or divided by a number of its own. A
step may have micro-batches of both kinds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.known_weights import KnownWeights
from mtl_optax.core.state_guard import batched
from mtl_optax.core.task_grads.as_task_grads import unchecked
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.weighed import Weighed
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree, lead


class Weighted(NamedTuple):
    """Micro-batches that were weighted at once."""

    total: Any  # tree of [*param], the sum of their weighted gradients
    batches: jax.Array  # [] int32, how many they are


class AccumulateTasksState(NamedTuple):
    """State of accumulate_tasks.

    After an update the numbers are zero; the trees are as they were, until the next
    micro-batch takes their place.
    """

    micro_step: jax.Array  # [] int32, micro-batches gathered since the last update
    gathered: TaskTree  # tree of [T, *param], sum of the stacked gradients; or None
    gathered_losses: TaskRows  # [T]
    gathered_counts: TaskRows  # [T] int32, micro-batches in which each task was active
    inner: Any  # state of the wrapped chain
    weighted: Weighted | None  # where the weights of the chain are known beforehand


def nothing_gathered(
    params: optax.Params, num_tasks: int, inner: Any, *, rows: bool, weighted: bool
) -> AccumulateTasksState:
    """The state at the start, with a stack if `rows`, with one sum if `weighted`."""

    def zero(x: Any) -> jax.Array:
        # Never weakly typed, or the second step would be traced anew.
        return jnp.zeros_like(x, jnp.result_type(x))

    def stack(x: Any) -> jax.Array:
        return jnp.broadcast_to(zero(x), (num_tasks, *jnp.shape(x)))  # sharded as x is

    # Two arrays: one of them could not be donated twice.
    none, no_batches = (jnp.zeros((), jnp.int32) for _ in range(2))
    return AccumulateTasksState(
        micro_step=none,
        gathered=jax.tree.map(stack, params) if rows else None,
        gathered_losses=jnp.zeros(num_tasks, jnp.result_type(float)),
        gathered_counts=jnp.zeros(num_tasks, jnp.int32),
        inner=inner,
        weighted=Weighted(jax.tree.map(zero, params), no_batches) if weighted else None,
    )


def arrays_of(
    state: AccumulateTasksState, like: optax.Params, num_tasks: int
) -> tuple[Any, Any]:
    """What the state has gathered, and the shapes of that for gradients like `like`."""
    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    have: list[Any] = [state.gathered_counts, state.gathered_losses]
    want: list[Any] = [*batched((number, number), num_tasks)]
    if state.gathered is not None:
        have.append(state.gathered)
        want.append(batched(like, num_tasks))
    if state.weighted is not None:
        have.append(state.weighted.total)
        want.append(like)
    return have, want


def counted(state: AccumulateTasksState, given: TaskGrads) -> AccumulateTasksState:
    """With the losses and the tasks of a micro-batch, but not its gradients."""
    present = jnp.ones(given.num_tasks, bool) if given.active is None else given.active
    losses = state.gathered_losses
    if given.losses is not None:
        losses += jnp.where(present, given.losses, 0).astype(losses.dtype)
    return state._replace(
        micro_step=state.micro_step + 1,
        gathered_losses=losses,
        gathered_counts=state.gathered_counts + present.astype(jnp.int32),
    )


def mean_losses(now: AccumulateTasksState) -> jax.Array:
    """Of each task over the micro-batches that it was in, `[T]`."""
    return now.gathered_losses / jnp.maximum(now.gathered_counts, 1)


def with_sum(
    now: AccumulateTasksState, given: TaskGrads, known: KnownWeights
) -> AccumulateTasksState:
    """With the gradients of a micro-batch, weighted at once."""
    assert now.weighted is not None
    total, batches = now.weighted
    new = known.weighed(given, now.inner, jnp.ones(given.num_tasks, bool))

    def add(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(batches == 0, 0, old) + new.astype(old.dtype)

    return now._replace(weighted=Weighted(jax.tree.map(add, total, new), batches + 1))


def with_rows(
    now: AccumulateTasksState, given: TaskGrads, due: jax.Array | bool
) -> AccumulateTasksState:
    """With the gradients of a micro-batch in the stack, which holds means if `due`."""
    first = _stacked(now) == 1
    counts = _stacked_counts(now)

    def fold(old: jax.Array, new: jax.Array, task: Any) -> jax.Array:
        total = jnp.where(first, 0, old) + new.astype(old.dtype)
        count = lead(counts, total) if task is None else counts[task]
        return jnp.where(due, total / count.astype(total.dtype), total)

    return now._replace(gathered=given.folded(now.gathered, fold))


def as_weighed(
    now: AccumulateTasksState, known: KnownWeights, num_tasks: int
) -> Weighed:
    """The mean over micro-batches of the weighted sums, in place of gradients.

    Of those that were stacked each task's mean is weighted.
    """
    assert now.weighted is not None
    total = now.weighted.total
    if now.gathered is not None:
        total = _with_stacked(now, total, known)
    mean = jax.tree.map(lambda x: x / now.micro_step.astype(x.dtype), total)
    return Weighed.of(mean, num_tasks)


def begun_anew(now: AccumulateTasksState, due: jax.Array) -> AccumulateTasksState:
    """The state with nothing counted, if an update was due."""

    def reset(x: jax.Array) -> jax.Array:
        return jnp.where(due, 0, x)

    weighted = now.weighted
    if weighted is not None:
        weighted = weighted._replace(batches=reset(weighted.batches))
    return now._replace(
        micro_step=reset(now.micro_step),
        gathered_losses=reset(now.gathered_losses),
        gathered_counts=reset(now.gathered_counts),
        weighted=weighted,
    )


def _with_stacked(now: AccumulateTasksState, total: Any, known: KnownWeights) -> Any:
    """The sum of all micro-batches, from those weighted at once and those stacked."""
    assert now.weighted is not None
    number, counts, at_once = _stacked(now), _stacked_counts(now), now.weighted.batches
    present = now.gathered_counts > at_once

    def both() -> Any:
        rows = unchecked(now.gathered)  # those of absent tasks are zero
        mean = known.weighed(rows, now.inner, present, counts)

        def add(old: jax.Array, new: jax.Array) -> jax.Array:
            new = new * number.astype(new.dtype)
            return jnp.where(at_once == 0, 0, old) + new.astype(old.dtype)

        return jax.tree.map(add, total, mean)

    return lax.cond(number > 0, both, lambda: total)


def _stacked(now: AccumulateTasksState) -> jax.Array:
    """How many micro-batches were stacked."""
    return now.micro_step - (0 if now.weighted is None else now.weighted.batches)


def _stacked_counts(now: AccumulateTasksState) -> jax.Array:
    """In how many of them each task was, at least 1, `[T]`."""
    at_once = 0 if now.weighted is None else now.weighted.batches
    return jnp.maximum(now.gathered_counts - at_once, 1)
