"""What is compiled: one program a method, over all its lanes at once.

A lane is one training run, described by traced numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

import mtl_optax as mtl
from mtl_optax.study import asking, methods
from mtl_optax.study.problem import Clock, Problem

CHUNK = 50  # records between two signs of progress, at most
# What is read from the states of methods: [T, T] of source on recipient, [T] labels,
# the `decrease` of `halves`, and the [T] multipliers and targets of nmt.
READINGS = ("affinity", "groups", "decrease", "multipliers", "targets")


class Lanes(NamedTuple):
    """One entry for each of L runs."""

    seed: NDArray[np.int32]  # [L]
    learning_rate: NDArray[np.float64]  # [L], where the schedule begins
    loss_scales: NDArray[np.float64]  # [L, T], multiply the losses
    trained: NDArray[np.float64]  # [L, T] 1 or 0, read by single_task alone
    settings: dict[str, NDArray[np.float64]]  # [L] each, keyword arguments of a method


class Recipe(NamedTuple):
    """What all lanes of all methods share."""

    steps: int
    optimizer: str = "adam"  # of methods.OPTIMIZERS
    schedule: str = "cosine"  # of methods.SCHEDULES
    batch_size: int = 64
    record_every: int = 1  # steps; divides their number

    @property
    def chunk(self) -> int:
        """Steps between two signs of progress: they divide all and end in a record."""
        every = self.record_every
        lengths = range(every, CHUNK * every + 1, every)
        return max(n for n in lengths if self.steps % n == 0)


class Record(NamedTuple):
    """What is kept of a step; arrays have time first, then lanes."""

    losses: Any  # [T], before the step and before scaling
    task_weights: Any  # [T], NaN if the method has none
    watched: Any  # what Problem.watch sees after the step, or ()
    readings: dict[str, Any]  # those of READINGS that the method's state has


def programs(
    problem: Problem, method: str, recipe: Recipe
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions of all lanes: the initial optimiser state, and a chunk of steps."""

    def settings(lane: Lanes, of_losses: bool) -> dict[str, Any]:
        """Those of the losses, or those of the method."""
        names = problem.loss_settings
        return {k: v for k, v in lane.settings.items() if (k in names) == of_losses}

    def transformation(lane: Lanes) -> optax.GradientTransformationExtraArgs:
        schedule = methods.SCHEDULES[recipe.schedule]
        rate = schedule(lane.learning_rate, recipe.steps)
        return methods.transformation(
            *(method, problem, methods.OPTIMIZERS[recipe.optimizer].make(rate)),
            seed=lane.seed,
            trained=lane.trained,
            settings=settings(lane, of_losses=False),
        )

    def init(params: Any, lane: Lanes) -> Any:
        return transformation(lane).init(params)

    def step(
        params: Any, opt_state: Any, batch: Any, lane: Lanes, number: Any
    ) -> tuple[Any, Any, Record]:
        clock: tuple[Clock, ...] = ()
        if problem.clocked:
            key = jax.random.fold_in(jax.random.key(lane.seed), number)
            clock = (Clock(number / recipe.steps, key),)

        def losses_fn(params: Any) -> tuple[jax.Array, ...]:
            own = settings(lane, of_losses=True)
            losses = problem.losses(params, batch, *clock, **own)
            return tuple(x * s for x, s in zip(losses, lane.loss_scales, strict=True))

        losses, grads = mtl.lazy_task_grads(losses_fn)(params)
        extra = {**asking.functions(losses_fn), "statistics": batch}
        if problem.active is not None:
            extra["active"] = problem.active(batch)
        updates, opt_state = transformation(lane).update(
            *(grads, opt_state, params), **extra
        )
        params = optax.apply_updates(params, updates)
        found = {name: optax.tree.get(opt_state, name) for name in READINGS}
        record = Record(
            losses=losses / lane.loss_scales,
            task_weights=_recorded_weights(opt_state, len(problem.tasks)),
            watched=problem.watch(params),
            readings={name: x for name, x in found.items() if x is not None},
        )
        return params, opt_state, record

    def advance(
        params: Any,
        opt_state: Any,
        batches: Any,
        data: Any,
        lanes: Lanes,
        steps: int,
        done: Any = 0,
    ) -> tuple[Any, Any, Record]:
        """Steps after those done; batches are indices `[steps, L, B]`, or None."""

        def body(carry: Any, at: Any) -> tuple[Any, Record]:
            indices, number = at
            batch = jax.tree.map(lambda x: x[indices], data)
            of_lane = jax.vmap(step, in_axes=(0, 0, 0, 0, None))
            *carry, record = of_lane(carry[0], carry[1], batch, lanes, number)
            return tuple(carry), record

        numbers = done + jnp.arange(steps)
        carry, records = jax.lax.scan(
            body, (params, opt_state), (batches, numbers), steps
        )
        every = recipe.record_every
        return *carry, jax.tree.map(lambda x: x[every - 1 :: every], records)

    return jax.vmap(init), advance


def _recorded_weights(opt_state: Any, num_tasks: int) -> jax.Array:
    try:
        return mtl.task_weights(opt_state)
    except ValueError:  # a from_gradients method has none
        return jnp.full(num_tasks, jnp.nan)
