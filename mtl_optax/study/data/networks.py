"""Networks on the images of digits: a trunk for all tasks, a linear head for each."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.study.data.digits import CANVAS

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
