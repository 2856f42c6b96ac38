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
from mtl_optax.study.methods import OPTIMIZERS, aggregator
from mtl_optax.study.model import Problem


class Lanes(NamedTuple):
    """One entry for each of L runs."""

    seed: NDArray[np.int32]  # [L]
    learning_rate: NDArray[np.float32]  # [L], falls to 0 on a cosine
    loss_scales: NDArray[np.float32]  # [L, T], multiply the losses
    own_task: NDArray[np.float32]  # [L, T] one-hot, read by single_task alone


class Recipe(NamedTuple):
    """What all lanes of all methods share."""

    steps: int
    optimizer: str = "adam"  # of methods.OPTIMIZERS


def programs(
    problem: Problem, method: str, recipe: Recipe
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions of all lanes: the initial optimiser state, and a chunk of steps."""
    num_tasks = len(problem.tasks)

    def transformation(lane: Lanes) -> optax.GradientTransformationExtraArgs:
        of_lane = {"seed": lane.seed, "own_task": lane.own_task}
        rule = aggregator(method, num_tasks, problem.shared, **of_lane)
        schedule = optax.cosine_decay_schedule(lane.learning_rate, recipe.steps)
        return optax.chain(rule, OPTIMIZERS[recipe.optimizer].make(schedule))

    def init(params: Any, lane: Lanes) -> Any:
        return transformation(lane).init(params)

    def step(
        params: Any, opt_state: Any, images: jax.Array, labels: jax.Array, lane: Lanes
    ) -> tuple[Any, Any, tuple[jax.Array, jax.Array]]:
        def losses_fn(params: Any) -> tuple[jax.Array, ...]:
            losses = problem.losses(params, images, labels)
            return tuple(x * s for x, s in zip(losses, lane.loss_scales, strict=True))

        losses, grads = mtl.lazy_task_grads(losses_fn)(params)
        updates, opt_state = transformation(lane).update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        record = losses / lane.loss_scales, _recorded_weights(opt_state, num_tasks)
        return params, opt_state, record

    def advance(
        params: Any,
        opt_state: Any,
        batches: jax.Array,
        images: jax.Array,
        labels: jax.Array,
        lanes: Lanes,
    ) -> tuple[Any, Any, tuple[jax.Array, jax.Array]]:
        def body(carry: Any, batch: jax.Array) -> tuple[Any, Any]:
            params, opt_state, record = jax.vmap(step)(
                carry[0], carry[1], images[batch], labels[batch], lanes
            )
            return (params, opt_state), record

        (params, opt_state), records = jax.lax.scan(body, (params, opt_state), batches)
        return params, opt_state, records

    return jax.vmap(init), advance


def _recorded_weights(opt_state: Any, num_tasks: int) -> jax.Array:
    try:
        return mtl.task_weights(opt_state)
    except ValueError:  # a from_gradients method has none
        return jnp.full(num_tasks, jnp.nan)
