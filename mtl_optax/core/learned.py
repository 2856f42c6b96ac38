"""One learned scalar a task, stepped by an optax optimiser of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.trees.task_axis import TaskRows, TaskTree, where_active


class TaskScalars(NamedTuple):
    """A vector of learned scalars and their optimiser's states."""

    values: TaskRows  # [T]
    optimizer_state: TaskTree  # every leaf with leading axis T


def scalars_from(
    optimizer: optax.GradientTransformation, value: Any
) -> Callable[[int], TaskScalars]:
    """`num_tasks -> TaskScalars` at `value`, a number or `[T]`."""

    def init(num_tasks: int) -> TaskScalars:
        if np.ndim(value):
            checks.task_vector("init", value, num_tasks)
        # Added to zeros, so that a state that is donated is not the caller's array.
        start = jnp.zeros(num_tasks) + jnp.asarray(value, jnp.result_type(float))
        return init_scalars(optimizer, start)

    return init


def init_scalars(
    optimizer: optax.GradientTransformation, values: jax.Array
) -> TaskScalars:
    """Scalars at their initial `values` `[T]`."""
    return TaskScalars(values, jax.vmap(optimizer.init)(values))


def step_scalars(
    optimizer: optax.GradientTransformation,
    gradient: jax.Array,
    state: TaskScalars,
    active: jax.Array,
) -> TaskScalars:
    """One optimiser step; the scalars and counters of inactive tasks stay.

    The optimiser runs under vmap over tasks, so that its step count, and with it bias
    correction and schedules, freezes with its task.
    """
    updates, optimizer_state = jax.vmap(optimizer.update)(
        gradient, state.optimizer_state, state.values
    )
    new = TaskScalars(optax.apply_updates(state.values, updates), optimizer_state)
    return where_active(active, new, state)
