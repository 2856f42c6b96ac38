"""How tasks exchange features between the scales of `MultiScaleEMANet`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.blocks import basic


class FeaturePropagation(nnx.Module):
    r"""What each task passes on to the next scale: its features and what others found.

    The maps of all K tasks are joined; residual blocks make of them, for each channel,
    weights of the tasks by a softmax; the weighted maps become one of C channels, of
    which each task takes what its squeeze-and-excitation lets pass, and adds its own.

    Args:
      tasks: names of the K tasks.
      channels: C of each task's map.
      reference_order: whether the softmax runs over K neighbouring channels of the
        joined maps, as in the authors' code, which are those of one task mostly,
        instead of over channel c of each task.
      **options: as in `Normalised`.

    Shared: all of it.

    References:
      Vandenhende et al., `MTI-Net <https://arxiv.org/abs/2001.06902>`_, ECCV 2020.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        channels: int,
        *,
        reference_order: bool = False,
        **options: Any,
    ):
        total = len(tasks) * channels
        hidden = max(total // 4, 1)
        self.tasks, self.reference_order = tuple(tasks), reference_order
        self.scores = nnx.Sequential(
            basic(total, hidden, **options),
            basic(hidden, hidden, **options),
            nnx.Conv(hidden, total, (1, 1), **options),
        )
        self.reduce = basic(total, channels, **options)
        self.squeeze = nnx.Dict({t: SqueezeExcite(channels, **options) for t in tasks})

    def __call__(self, maps: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """A map for each task, from maps `[B, H, W, C]`."""
        joined = jnp.concatenate([maps[task] for task in self.tasks], axis=-1)
        weights = self.weights(self.scores(joined))
        common = self.reduce(weights * joined)
        return {task: self.squeeze[task](common) + maps[task] for task in self.tasks}

    def weights(self, scores: jax.Array) -> jax.Array:
        """Of each channel of the joined maps `[B, H, W, K C]`."""
        shape, count = scores.shape, len(self.tasks)
        if self.reference_order:
            groups = scores.reshape(*shape[:-1], -1, count)
            return nnx.softmax(groups, axis=-1).reshape(shape)
        groups = scores.reshape(*shape[:-1], count, -1)
        return nnx.softmax(groups, axis=-2).reshape(shape)


class SqueezeExcite(nnx.Module):
    """Channels times a factor in (0, 1) that their means over the map determine."""

    def __init__(self, channels: int, **options: Any):
        hidden = max(channels // 16, 1)
        self.first = nnx.Linear(channels, hidden, **options)
        self.second = nnx.Linear(hidden, channels, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]`."""
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        return x * nnx.sigmoid(self.second(nnx.relu(self.first(mean))))
