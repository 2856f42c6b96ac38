"""Networks on digits, and classification as a problem: a trunk, heads, functions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_optax.analysis import metrics
from mtl_optax.study.data.digits import (
    CANVAS,
    CREDITS,
    NUM_IMAGES,
    NUM_SCANS,
    TASKS,
    Split,
    multi_digits,
)
from mtl_optax.study.engine.problem import Metric, Problem, stateless

ABOUT = (
    "All methods share start, batches and network: trunk 144-128-64, ReLU, a linear "
    "head for each task. Methods act on the trunk; each head gets its own gradient. "
    "Scans are split into training, validation and test before any are composed. "
    "single_task trains each task in a network of its own."
)
CROSS_ENTROPY = Metric("cross-entropy", "nat", higher_is_better=False)
CHANNELS = 16  # of convolutions

# He's gain keeps the signal through ReLU. It matters: with Flax's default a dominated
# task ends 10 to 30 points lower, because the other one fits later.
linear = partial(nnx.Linear, kernel_init=nnx.initializers.he_normal())


def trunk(width: int = 64, *, rngs: nnx.Rngs) -> nnx.Sequential:
    """From images to so many features, with twice as many units between, and ReLU."""
    return nnx.Sequential(
        linear(CANVAS**2, 2 * width, rngs=rngs),
        nnx.relu,
        linear(2 * width, width, rngs=rngs),
        nnx.relu,
    )


class MultiTaskMLP(nnx.Module):
    """Trunk 144-128-64 with ReLU, and a linear head for each task."""

    def __init__(self, classes: dict[str, int], *, rngs: nnx.Rngs):
        self.trunk = trunk(rngs=rngs)
        self.heads = nnx.Dict(
            {task: linear(64, count, rngs=rngs) for task, count in classes.items()}
        )

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """Logits of each task for images `[B, 144]`."""
        features = self.trunk(images)
        return {task: head(features) for task, head in self.heads.items()}


class Conv(nnx.Module):
    """A 3 x 3 convolution as one matrix product of patches.

    In a scan, and more so under vmap, XLA's own is several times slower on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.linear = linear(9 * inputs, outputs, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]`, zero outside."""
        _, height, width, _ = images.shape
        wide = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [
            wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
        ]
        return self.linear(jnp.concatenate(patches, axis=-1))


def pool(images: jax.Array) -> jax.Array:
    """The largest of each 2 x 2 pixels of images `[B, H, W, C]`."""
    batch, height, width, channels = images.shape
    shape = batch, height // 2, 2, width // 2, 2, channels
    return images.reshape(shape).max(axis=(2, 4))


class MultiTaskCNN(nnx.Module):
    """Two convolutions with 2 x 2 pooling, a dense layer, a head for each task."""

    def __init__(self, classes: dict[str, int], *, rngs: nnx.Rngs):
        size = (CANVAS // 4) ** 2 * CHANNELS
        self.first = Conv(1, CHANNELS, rngs=rngs)
        self.second = Conv(CHANNELS, CHANNELS, rngs=rngs)
        self.dense = linear(size, 64, rngs=rngs)
        self.heads = nnx.Dict(
            {task: linear(64, count, rngs=rngs) for task, count in classes.items()}
        )

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """Logits of each task for images `[B, 144]`."""
        canvas = images.reshape(-1, CANVAS, CANVAS, 1)
        features = pool(nnx.relu(self.first(canvas)))
        features = pool(nnx.relu(self.second(features)))
        features = nnx.relu(self.dense(features.reshape(len(images), -1)))
        return {task: head(features) for task, head in self.heads.items()}


class Functions(NamedTuple):
    """A network as functions of its parameters."""

    init: Callable[[int], Any]  # seed -> params
    logits: Callable[[Any, Any], list[jax.Array]]  # (params, images) -> [B, classes]


def functions(network: Callable[..., nnx.Module], classes: dict[str, int]) -> Functions:
    """Of `network(classes, rngs=rngs)(images)`, which gives the logits of each task."""
    # The structure without numbers: the same for every seed.
    structure, _ = nnx.split(nnx.eval_shape(lambda: network(classes, rngs=nnx.Rngs(0))))

    def init(seed: int) -> Any:
        return nnx.split(network(classes, rngs=nnx.Rngs(seed)))[1]

    def logits(params: Any, images: Any) -> list[jax.Array]:
        answers = nnx.merge(structure, params)(images)
        return [answers[task] for task in classes]

    return Functions(init, logits)


def cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    """The mean of a batch, `[B, classes]` and `[B]`."""
    return jnp.mean(cross_entropies(logits, labels))


def cross_entropies(logits: jax.Array, labels: Any) -> jax.Array:
    """Of each example, `[B]`; the gradient scatters nothing."""
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, targets)


def digits_problem(num_tasks: int) -> Problem:
    """Multi-digits with the MLP."""
    classes = dict(list(TASKS.items())[:num_tasks])
    splits = multi_digits(num_tasks)
    name = f"Multi-digits, T={num_tasks}"
    return classification(name, classes, splits, MultiTaskMLP, ABOUT)


def classification(
    name: str,
    classes: dict[str, int],
    splits: dict[str, Split],
    network: Callable[..., nnx.Module],
    about: str,
) -> Problem:
    """A network whose `heads` answer so many questions about images.

    Args:
      name: of the problem.
      classes: task -> number of classes, in the order of the labels.
      splits: images `[N, 144]` and labels `[N, T]`.
      network: see `functions`.
      about: for the report.
    """
    tasks = tuple(classes)
    init, logits = functions(network, classes)

    def losses(params: Any, batch: Split) -> tuple[jax.Array, ...]:
        return tuple(
            cross_entropy(z, y)
            for z, y in zip(logits(params, batch.images), batch.labels.T, strict=True)
        )

    def evaluate(params: Any, split: Split) -> dict[str, jax.Array]:
        hits = [
            metrics.accuracy(jnp.argmax(z, axis=-1), y).mean
            for z, y in zip(logits(params, split.images), split.labels.T, strict=True)
        ]
        return {"accuracy": 100 * jnp.stack(hits)}

    return stateless(
        name=name,
        tasks=tasks,
        splits=splits,
        init=init,
        losses=losses,
        metrics=(Metric("accuracy", "%"),),
        loss=(CROSS_ENTROPY,),
        evaluate=evaluate,
        owner=partial(owners_by_name, tasks),
        about=about,
        facts={"scans": NUM_SCANS, "images": NUM_IMAGES},
        credits=CREDITS,
    )


def owners_by_name(tasks: Sequence[str], params: Any) -> Any:
    """The task whose head holds a leaf, as its key path says; None in the trunk."""
    return by_name({f"['heads']['{x}']": t for t, x in enumerate(tasks)}, params)


def by_name(places: dict[str, Any], params: Any) -> Any:
    """For each leaf what stands at the start of its key path, None where nothing is."""

    def at(path: Any, _: Any) -> Any:
        name = jax.tree_util.keystr(path)
        return next((x for start, x in places.items() if name.startswith(start)), None)

    return jax.tree_util.tree_map_with_path(at, params)
