"""Whose turn it is, where a step does not look at all tasks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskTurns


class TurnsState(NamedTuple):
    """State of the turns."""

    first: jax.Array  # [] int32, the task that a cycle goes on with
    key: jax.Array  # raw key data, uint32
    due: TaskTurns  # [T] bool, who comes in the next step if all are there


class Turns:
    """So many tasks a step, in turn or at random."""

    def __init__(self, num_tasks: Any, each_step: Any, order: str, key: Any) -> None:
        self.num_tasks = checks.static_int("num_tasks", num_tasks)
        self.each_step = checks.static_int("refresh", each_step)
        if self.each_step > self.num_tasks:
            raise ValueError(
                f"refresh={each_step} is more than the {num_tasks} tasks that there "
                "are: give a number from 1 to num_tasks."
            )
        checks.one_of("order", order, ("cyclic", "random"))
        self.at_random = order == "random"
        self.key = raw_key(key)

    def init(self, params: optax.Params) -> TurnsState:
        """The first turn is that of the first tasks, or drawn."""
        first = replicated_zeros((), params).astype(jnp.int32)
        key = jnp.copy(self.key)
        place, _ = self._places(first, key)
        return TurnsState(first, key, place < self.each_step)

    def take(
        self, state: TurnsState, present: jax.Array
    ) -> tuple[list[tuple[jax.Array, jax.Array]], TurnsState]:
        """Index of each task that comes, with whether it is there; the next state.

        Tasks that are not present `[T]` are passed over. Those that are due come first,
        for they may not be those of the cycle once tasks were added or dropped.
        """
        place, key = self._places(state.first, state.key)
        place += jnp.where(state.due, 0, self.num_tasks)
        tasks = jnp.argsort(place + jnp.where(present, 0, 2 * self.num_tasks))
        tasks = tasks[: self.each_step].astype(jnp.int32)
        here = present[tasks]
        last = tasks[jnp.maximum(jnp.sum(here) - 1, 0)]
        first = jnp.where(jnp.any(here), (last + 1) % self.num_tasks, state.first)
        due = self._places(first, key)[0] < self.each_step
        pairs = [(tasks[i], here[i]) for i in range(self.each_step)]
        return pairs, TurnsState(first, key, due)

    def _places(self, first: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Who comes how soon `[T]`, a permutation, and the key after."""
        tasks = jnp.arange(self.num_tasks, dtype=jnp.int32)
        if not self.at_random:
            return (tasks - first) % self.num_tasks, key
        use, key = next_key(key)
        return jax.random.permutation(use, tasks), key
