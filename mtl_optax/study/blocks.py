"""Multi-digits with a known truth: tasks in two blocks, one for each digit.

Whether a digit is odd, and whether it is 5 or more, follows from the digit, and says
nothing about the other one, which is drawn apart. So a method that groups tasks should
find the tasks of the left digit together, and those of the right one.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from mtl_optax.study.data import CANVAS, Split, multi_digits
from mtl_optax.study.model import MultiTaskMLP, classification
from mtl_optax.study.problem import Problem

Groups = tuple[tuple[int, ...], ...]

# What is asked of each digit, and the number of answers; the first T/2 of them.
QUESTIONS = {"": 10, "_parity": 2, "_high": 2}
CHANNELS = 16
ABOUT = (
    "Two blocks of tasks: the left digit, whether it is odd (parity), whether it is 5 "
    "or more (high); the same of the right one. All methods share start, batches and "
    "network: trunk {trunk}, ReLU, a linear head for each task. Scans are split into "
    "training, validation and test before any are composed. single_task trains each "
    "task in a network of its own."
)


def classes(num_tasks: int) -> dict[str, int]:
    """Task -> number of classes, the left block first."""
    questions = list(QUESTIONS.items())[: num_tasks // 2]
    return {
        f"{digit}{question}": count
        for digit in ("left", "right")
        for question, count in questions
    }


def truth(num_tasks: int) -> Groups:
    """The two blocks."""
    half = num_tasks // 2
    return tuple(range(half)), tuple(range(half, num_tasks))


def labels(digits: NDArray[np.int32], num_tasks: int) -> NDArray[np.int32]:
    """The answers `[N, T]`, from left and right digits `[N, 2]`."""
    answers = [digits, digits % 2, digits >= 5][: num_tasks // 2]
    blocks = [answer[:, side] for side in (0, 1) for answer in answers]
    return np.stack(blocks, axis=1).astype(np.int32)


class Conv(nnx.Module):
    """A 3 x 3 convolution as one matrix product of patches.

    In a scan, and more so under vmap, XLA's own is several times slower on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        he = nnx.initializers.he_normal()
        self.linear = nnx.Linear(9 * inputs, outputs, kernel_init=he, rngs=rngs)

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
        linear = partial(nnx.Linear, kernel_init=nnx.initializers.he_normal())
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


NETWORKS = {"mlp": MultiTaskMLP, "cnn": MultiTaskCNN}
TRUNKS = {
    "mlp": "144-128-64",
    "cnn": f"of two 3 x 3 convolutions of {CHANNELS} channels with 2 x 2 pooling, 64",
}


def block_digits(num_tasks: int, network: str) -> Problem:
    """Two, four or six tasks, with the network "mlp" or "cnn"."""
    splits = {
        name: Split(split.images, labels(split.labels, num_tasks))
        for name, split in multi_digits(2).items()
    }
    return classification(
        f"Multi-digits in two blocks, T={num_tasks}, {network}",
        classes(num_tasks),
        splits,
        NETWORKS[network],
        ABOUT.format(trunk=TRUNKS[network]),
    )
