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

from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Recipe


class Start(NamedTuple):
    """What the runs of one seed have in common, whatever the method."""

    params: Any
    batches: NDArray[np.int32] | None  # [steps, batch size], indices of examples


class Common(NamedTuple):
    """What all methods share: made once."""

    starts: dict[int, Start]  # by seed
    data: Any  # the training split on the device, or None
    evaluate: Callable[[Any, Any], dict[str, jax.Array]]  # over lanes, compiled


def prepare(problem: Problem, seeds: list[int], recipe: Recipe) -> Common:
    """Draws starts and batches, outside of any jit and once for all methods."""
    train = problem.splits.get("train")

    def batches(seed: int) -> NDArray[np.int32] | None:
        if train is None:
            return None
        size = len(jax.tree.leaves(train)[0])
        draw = epoch_indices if problem.epochs else batch_indices
        return draw(seed, size, recipe.steps, recipe.batch_size)

    with precision(problem):
        starts = {seed: Start(problem.init(seed), batches(seed)) for seed in seeds}
        data = jax.tree.map(jnp.asarray, train)
    evaluate = jax.jit(jax.vmap(problem.evaluate, in_axes=(0, None)))
    return Common(starts, data, evaluate)


def batch_indices(
    seed: int, num_examples: int, steps: int, batch_size: int
) -> NDArray[np.int32]:
    """The batches of a seed `[steps, batch_size]`, drawn outside of any jit."""
    rng = np.random.default_rng(seed)
    return rng.integers(num_examples, size=(steps, batch_size), dtype=np.int32)


def epoch_indices(
    seed: int, num_examples: int, steps: int, batch_size: int
) -> NDArray[np.int32]:
    """The same, in epochs: every example once, in a new order each time."""
    rng = np.random.default_rng(seed)
    number = -(-steps * batch_size // num_examples)
    orders = np.tile(np.arange(num_examples, dtype=np.int32), (number, 1))
    order = rng.permuted(orders, axis=1).reshape(-1)
    return order[: steps * batch_size].reshape(steps, batch_size)


def precision(problem: Problem) -> Any:
    """A context in which arrays are as wide as the problem wants them."""
    return jax.enable_x64(problem.precision == "float64")
