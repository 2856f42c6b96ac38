"""The network of the studies: one trunk for all tasks, one linear head for each.

A problem is what the runner trains: data and four functions. Later problems (a toy
function, another network) are other values of the same tuple.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_optax.analysis import metrics
from mtl_optax.study.data import CANVAS, TASKS, Split, multi_digits


class Problem(NamedTuple):
    """Data, and what the runner needs to know of a model."""

    name: str
    tasks: tuple[str, ...]
    splits: dict[str, Split]  # "train", "val" and "test"
    init: Callable[[int], Any]  # seed -> params
    losses: Callable[..., tuple[jax.Array, ...]]  # (params, images, labels) -> T losses
    accuracy: Callable[..., jax.Array]  # (params, images, labels) -> [T], in percent
    shared: Callable[[Any], Any]  # params -> mask, True on what all tasks share


class MultiTaskMLP(nnx.Module):
    """Trunk 144-128-64 with ReLU, and a linear head for each task."""

    def __init__(self, tasks: Sequence[str], *, rngs: nnx.Rngs):
        # He's gain keeps the signal through ReLU. It matters: with Flax's default a
        # dominated task ends 10 to 30 points lower, because the other one fits later.
        linear = partial(nnx.Linear, kernel_init=nnx.initializers.he_normal())
        self.trunk = nnx.Sequential(
            linear(CANVAS**2, 128, rngs=rngs),
            nnx.relu,
            linear(128, 64, rngs=rngs),
            nnx.relu,
        )
        self.heads = nnx.Dict(
            {task: linear(64, TASKS[task], rngs=rngs) for task in tasks}
        )

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """Logits of each task for images `[B, 144]`."""
        features = self.trunk(images)
        return {task: head(features) for task, head in self.heads.items()}


def digits_problem(num_tasks: int) -> Problem:
    """Multi-digits with the MLP."""
    tasks = tuple(TASKS)[:num_tasks]
    # The structure without numbers: the same for every seed.
    structure, _ = nnx.split(
        nnx.eval_shape(lambda: MultiTaskMLP(tasks, rngs=nnx.Rngs(0)))
    )

    def init(seed: int) -> Any:
        return nnx.split(MultiTaskMLP(tasks, rngs=nnx.Rngs(seed)))[1]

    def logits(params: Any, images: jax.Array) -> list[jax.Array]:
        answers = nnx.merge(structure, params)(images)
        return [answers[task] for task in tasks]

    def losses(
        params: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, ...]:
        return tuple(
            jnp.mean(optax.softmax_cross_entropy(z, jax.nn.one_hot(y, z.shape[-1])))
            for z, y in zip(logits(params, images), labels.T, strict=True)
        )

    def accuracy(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        hits = [
            metrics.accuracy(jnp.argmax(z, axis=-1), y).mean
            for z, y in zip(logits(params, images), labels.T, strict=True)
        ]
        return 100 * jnp.stack(hits)

    name = f"Multi-digits, T={num_tasks}"
    splits = multi_digits(num_tasks)
    return Problem(name, tasks, splits, init, losses, accuracy, shared_leaves)


def shared_leaves(params: Any) -> Any:
    """True on the leaves of the trunk, which is where their key path begins."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path).startswith("['trunk']"), params
    )
