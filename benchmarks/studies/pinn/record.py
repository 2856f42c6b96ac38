"""The engine's programs, and what is looked at once a record: errors and conflicts.

They cost several backward passes, and a look at every step would double its price.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import mtl_optax as mtl
from benchmarks.studies.pinn import network
from mtl_optax.study.engine import program
from mtl_optax.study.engine.problem import Now, Problem
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, StepLog
from mtl_optax.study.engine.transformations import Method


class Watched(NamedTuple):
    """Numbers of a record: the last axis of `MethodResult.path`."""

    error: Any  # mean squared error over the whole domain
    alignment: Any  # of the tasks' gradients, see below
    lowest: Any  # of their cosines


def errors(params: Any, split: Any) -> jax.Array:
    """Mean squared error against the reference in the region of each task, `[T]`."""
    points, exact, regions = split
    square = jnp.mean((network.value(params, points) - exact) ** 2, axis=1)
    return network.product(square, regions) / regions.sum(axis=0)


def alignment(cosines: jax.Array) -> jax.Array:
    """Wang et al.'s score of cosines `[T, T]`: from -1 to 1, of two tasks the cosine.

    It is 2 |m|² - 1, with m the mean of the unit gradients.
    """
    return 2 * cosines.mean() - 1


def watched(problem: Problem, params: Any, points: Any) -> jax.Array:
    """`[len(Watched)]`."""

    def losses(params: Any) -> Any:
        return problem.losses(params, points, None, Now(0, None))[0]  # type: ignore

    cosines = mtl.cosine_similarity(mtl.task_grads(losses)(params)[1])
    error = errors(params, problem.splits["grid"])[0]
    return jnp.stack(Watched(error, alignment(cosines), cosines.min()))


def programs(problem: Problem, method: Method, recipe: Recipe) -> tuple[Any, Any]:
    """As `engine.program.programs`; a record is watched at its end."""
    init, plain = program.programs(problem, method, recipe)
    every = recipe.record_every

    def advance(
        carry: Carry, batches: Any, data: Any, lanes: Lanes, steps: int, done: Any = 0
    ) -> tuple[Carry, StepLog]:
        def record(carry: Carry, first: Any) -> tuple[Carry, StepLog]:
            carry, log = plain(carry, batches, data, lanes, every, first)
            log = jax.tree.map(lambda x: x[0], log)
            look = jax.vmap(lambda *x: watched(problem, *x))
            return carry, log._replace(watched=look(carry.params, carry.state))

        return lax.scan(record, carry, done + every * jnp.arange(steps // every))

    return init, advance
