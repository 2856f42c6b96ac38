"""What the runs of all methods have in common: made once, outside of any jit.

Lanes of the same seed start at the same parameters and see the same batches, whatever
the method: what differs between them is the method alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.core.arguments.leaf_groups import owners
from mtl_optax.study.engine import checks
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.program import Carry, Lanes, Recipe


class Start(NamedTuple):
    """What the runs of one seed have in common, whatever the method."""

    params: Any
    state: Any
    batches: NDArray[np.int32] | None  # [steps, ...], indices of examples


class Common(NamedTuple):
    """What all methods share on one problem: made once."""

    starts: dict[int, Start]  # by seed
    data: Any  # the training split on the device, or None
    evaluate: Callable[..., dict[str, jax.Array]]  # over lanes, compiled


def precision(problem: Problem) -> Any:
    """A context in which arrays are as wide as the problem wants them."""
    return jax.enable_x64(problem.precision == "float64")


def prepare(problem: Problem, seeds: list[int], recipe: Recipe) -> Common:
    """Draws starts and batches, outside of any jit and once for all methods."""
    train = problem.splits.get("train")

    def batches(seed: int) -> NDArray[np.int32] | None:
        if train is None:
            return None
        size = len(jax.tree.leaves(train)[0])
        return problem.draw(seed, size, recipe.steps, recipe.batch_size)

    with precision(problem):
        starts = {seed: Start(*problem.init(seed), batches(seed)) for seed in seeds}
        data = jax.tree.map(jnp.asarray, train)
        some = starts[seeds[0]]
        owners(problem.owner, some.params, len(problem.tasks))  # or says what is wrong
        checks.metrics(problem, some.params, some.state)
    evaluate = jax.jit(jax.vmap(problem.evaluate, in_axes=(0, 0, None, 0)))
    return Common(starts, data, evaluate)


class Block:
    """Lanes that one program trains at once, where they begin, and their batches."""

    def __init__(self, lanes: Lanes, common: Common):
        """Looks up the starts of their seeds."""
        self.lanes = lanes
        self.starts = [common.starts[int(seed)] for seed in lanes.seed]
        own = [x.batches for x in self.starts]
        self.batches = jax.tree.map(lambda *x: np.stack(x, axis=1), *own)

    def carry(self, init: Any) -> Carry:
        """Before the first step; `init` makes the states of optimisers."""
        variables = [(x.params, x.state) for x in self.starts]
        params, state = jax.tree.map(lambda *x: jnp.stack(x), *variables)
        return Carry(params, state, init(params, self.lanes))

    def batch(self, done: int, chunk: int) -> Any:
        """Of so many steps after those done, or None."""
        return jax.tree.map(lambda x: x[done : done + chunk], self.batches)


def evaluated(
    problem: Problem, common: Common, blocks: list[Block], carries: list[Carry]
) -> dict[str, dict[str, NDArray]]:
    """Split -> name -> `[L, T]`; block by block, as they were trained."""
    metrics = {}
    for split, examples in problem.splits.items():
        if split != "train":
            found = [
                common.evaluate(
                    *(carry.params, carry.state, examples),
                    jax.vmap(jax.random.key)(block.lanes.seed),
                )
                for block, carry in zip(blocks, carries, strict=True)
            ]
            metrics[split] = {
                name: np.concatenate([np.asarray(x[name]) for x in found])
                for name in found[0]
            }
    return metrics
