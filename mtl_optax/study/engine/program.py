"""What is compiled: one program a method, over all its lanes at once.

A lane is one training run, described by traced numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

import mtl_optax as mtl
from mtl_optax.study.engine import checks
from mtl_optax.study.engine.methods import OPTIMIZERS, SCHEDULES
from mtl_optax.study.engine.problem import Now, Problem
from mtl_optax.study.engine.transformations import (
    Ingredients,
    Method,
    OnTwoBatches,
)

_SECOND = 1  # of a step's key, the part that draws the validation batch
CHUNK = 50  # records between two signs of progress, at most; ten signs in long runs


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
    readings: tuple[str, ...] = ()  # names of fields of methods' states to keep

    @property
    def chunk(self) -> int:
        """Steps between two signs of progress: they divide all and end in a record."""
        every, least = self.record_every, max(self.record_every, CHUNK)
        most = min(CHUNK * every, max(least, self.steps // 10))
        lengths = range(every, most + 1, every)
        return max(n for n in lengths if self.steps % n == 0)


class StepLog(NamedTuple):
    """What is kept of a step; arrays have time first, then lanes."""

    losses: Any  # [T], before the step and before scaling
    task_weights: Any  # [T], NaN if the method has none
    watched: Any  # what Problem.watch sees after the step, or ()
    readings: dict[str, Any]  # those of the recipe that the method's state has


class Carry(NamedTuple):
    """What goes from step to step; everything in it is an array."""

    params: Any
    state: Any  # of the problem
    opt_state: Any


def programs(
    problem: Problem, method: Method, recipe: Recipe
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions of all lanes: the initial optimiser state, and a chunk of steps."""

    def settings(lane: Lanes, of_losses: bool) -> dict[str, Any]:
        """Those of the losses, or those of the method."""
        names = problem.loss_settings
        return {k: v for k, v in lane.settings.items() if (k in names) == of_losses}

    def transformation(lane: Lanes) -> optax.GradientTransformationExtraArgs:
        rate = SCHEDULES[recipe.schedule](lane.learning_rate, recipe.steps)
        optimizer = OPTIMIZERS[recipe.optimizer].make(rate)
        key = jax.random.key(lane.seed)
        of = Ingredients(problem, optimizer, key, lane.trained, rate)
        made = method(of, **settings(lane, of_losses=False))
        return optax.with_extra_args_support(made)

    def init(params: Any, lane: Lanes) -> Any:
        return transformation(lane).init(params)

    def step(
        carry: Carry, batch: Any, lane: Lanes, number: Any, held_out: Any
    ) -> tuple[Any, StepLog]:
        params, state, opt_state = carry
        key = jax.random.fold_in(jax.random.key(lane.seed), number)
        now = Now(number / recipe.steps, key)

        def losses_of(batch: Any, now: Now, params: Any) -> tuple[Any, Any]:
            own = settings(lane, of_losses=True)
            found = problem.losses(params, state, batch, now, **own)
            losses, after = checks.one_a_task(problem, found, state)
            scaled = zip(losses, lane.loss_scales, strict=True)
            return tuple(x * s for x, s in scaled), after

        losses_fn = partial(losses_of, batch, now)

        # The state as the losses leave it; a method that asks again does not move it.
        (losses, state_after), grads = mtl.lazy_task_grads(losses_fn, has_aux=True)(
            params
        )
        extra = {"losses_fn": lambda x: losses_fn(x)[0], "statistics": state_after}
        if problem.active is not None:
            extra["active"] = problem.active(batch)
        if isinstance(method, OnTwoBatches):
            draw, own = jax.random.split(jax.random.fold_in(key, _SECOND))
            second = some_of(held_out, draw, recipe.batch_size)
            later = now._replace(key=own)
            ask = partial(losses_of, second, later)
            extra["validation_losses_fn"] = lambda x: ask(x)[0]
            if problem.active is not None:
                extra["validation_active"] = problem.active(second)
        updates, opt_state = transformation(lane).update(
            *(grads, opt_state, params), **extra
        )
        params = optax.apply_updates(params, updates)
        found = {name: optax.tree.get(opt_state, name) for name in recipe.readings}
        log = StepLog(
            losses=losses / lane.loss_scales,
            task_weights=_logged_weights(opt_state, len(problem.tasks)),
            watched=problem.watch(params, state_after),
            readings={name: x for name, x in found.items() if x is not None},
        )
        return Carry(params, state_after, opt_state), log

    def advance(
        carry: Carry, batches: Any, data: Any, lanes: Lanes, steps: int, done: Any = 0
    ) -> tuple[Carry, StepLog]:
        """Steps after those done; batches are indices `[steps, L, ...]`, or None.

        Data are the training split; with a method on two batches a pair, and "val".
        """
        train, held_out = data if isinstance(method, OnTwoBatches) else (data, None)
        over_lanes = jax.vmap(step, in_axes=(0, 0, 0, None, None))

        def body(carry: Carry, at: Any) -> tuple[Carry, StepLog]:
            indices, number = at
            batch = jax.tree.map(lambda x: x[indices], train)
            return over_lanes(carry, batch, lanes, number, held_out)

        numbers = done + jnp.arange(steps)
        carry, logs = jax.lax.scan(body, carry, (batches, numbers), steps)
        every = recipe.record_every
        return carry, jax.tree.map(lambda x: x[every - 1 :: every], logs)

    return jax.vmap(init), advance


def some_of(split: Any, key: jax.Array, number: int) -> Any:
    """So many examples of a split, drawn with replacement; None of none."""
    if split is None:
        return None
    whole = len(jax.tree.leaves(split)[0])
    at = jax.random.randint(key, (number,), 0, whole)
    return jax.tree.map(lambda x: x[at], split)


def _logged_weights(opt_state: Any, num_tasks: int) -> jax.Array:
    none = jnp.full(num_tasks, jnp.nan)
    try:
        weights = mtl.task_weights(opt_state)
    except ValueError:  # a from_gradients method has none
        return none
    return weights if weights.ndim == 1 else none  # those of blocks are no shares
