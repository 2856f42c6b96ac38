"""The encoder-decoder of SegNet, as papers on MTL of dense tasks use it. NHWC."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.blocks import MOMENTUM, Normalised, resized

WIDEST = 8  # times the width of the first stage


class SegNet(nnx.Module):
    r"""Convolutions and pooling down to 1/32 of the image, and the same way back.

    Five stages of 3×3 convolutions, batch normalisation and ReLU; after each, 2×2
    max-pooling, which keeps where each maximum was. Five stages back, before each of
    which values return to where their maxima were, among zeros. The map has the size of
    the image, which 32 must divide.

    Args:
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      depths: convolutions of each stage on the way down; fewer than five stages for
        small images.
      num_in: channels of the image.
      dtype: of the computation.
      rngs: for all layers.

    Attributes:
      channels: of all stages, down and up.

    Raises:
      ValueError: when called, if 32 (2 to the number of stages) does not divide height
        and width.

    Cost: 112 GFLOP forward for one image of 288×384 at width 64, half of it in the
    stages at full resolution.

    When not to use it: on small images, or where a trained encoder is at hand.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import SegNet
      >>> def features(images):
      ...     return SegNet(width=4, rngs=nnx.Rngs(0))(images)
      >>> jax.eval_shape(features, jnp.ones((2, 32, 64, 3))).shape
      (2, 32, 64, 4)

    References:
      Badrinarayanan et al., `SegNet <https://arxiv.org/abs/1511.00561>`_, 2015, in the
      form of Liu et al., see :class:`MTAN`, on which the published numbers of most
      methods rest. Where we differ: convolutions before batch normalisation have no
      bias, which normalisation takes out again.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        num_in: int = 3,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        options = {"momentum": MOMENTUM, "dtype": dtype, "rngs": rngs}
        down = [width * min(2**stage, WIDEST) for stage in range(len(depths))]
        up = [*down[-2::-1], width]
        self.channels = (*down, *up)
        before = [num_in, *self.channels[:-1]]
        depths = (*depths, *reversed(depths))
        self.stages = nnx.List(
            [
                Stage(*sizes, **options)
                for sizes in zip(before, self.channels, depths, strict=True)
            ]
        )

    def __call__(self, x: Any) -> jax.Array:
        """The last map, `[B, H, W, width]`, of images `[B, H, W, num_in]`."""
        return self.pairs(x)[-1][1]

    def in_stages(self) -> list[nnx.Sequential]:
        """All stages as modules in a row, for networks that put something between.

        No stage knows where the maxima of another were, so that on the way back each
        value fills its 2×2 window.
        """
        down, up = self._ways()
        return [
            nnx.Sequential(down[0]),
            *(nnx.Sequential(half, stage) for stage in down[1:]),
            nnx.Sequential(half, double, up[0]),
            *(nnx.Sequential(double, stage) for stage in up[1:]),
        ]

    def pairs(self, x: Any) -> list[tuple[jax.Array, jax.Array]]:
        """Of each stage its first map and its last: what `MTAN` attends to."""
        down, up = self._ways()
        halvings = 2 ** len(down)
        if x.shape[1] % halvings or x.shape[2] % halvings:
            raise ValueError(
                f"SegNet: images are {x.shape[1]}×{x.shape[2]}, and {len(down)} "
                f"halvings need multiples of {halvings}. Resize or crop them, or take "
                "a ResNet."
            )
        pairs, places = [], []
        for stage in down:
            pairs.append(stage.pair(x))
            x, place = max_pool(pairs[-1][1])
            places.append(place)
        for stage in up:
            pairs.append(stage.pair(unpool(x, places.pop())))
            x = pairs[-1][1]
        return pairs

    def _ways(self) -> tuple[list[Any], list[Any]]:
        """The stages down and up."""
        stages = list(self.stages)
        return stages[: len(stages) // 2], stages[len(stages) // 2 :]


class Stage(nnx.Module):
    """Convolutions of one size, with normalisation and ReLU after each."""

    def __init__(self, before: int, after: int, depth: int, **options: Any):
        sizes = [before] + [after] * (depth - 1)
        self.layers = nnx.List([Normalised(b, after, 3, **options) for b in sizes])

    def __call__(self, x: Any) -> jax.Array:
        """`[B, H, W, after]`."""
        return self.pair(x)[1]

    def pair(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """After the first layer, and after the last."""
        first, *others = self.layers
        x = seen = nnx.relu(first(x))
        for layer in others:
            x = nnx.relu(layer(x))
        return seen, x


class DenseHead(nnx.Module):
    """Predictions of each pixel from a map: a 3×3 convolution and one of 1×1.

    Nothing stands between the two, as published. Predictions are enlarged to `size`
    (bilinear) where the map is smaller.

    Args:
      before: channels of the map.
      after: channels of the predictions.
      size: (H, W) of the predictions.
      dtype: of the computation.
      rngs: for both layers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import DenseHead
      >>> def depth(features):
      ...     return DenseHead(4, 1, (16, 24), rngs=nnx.Rngs(0))(features)
      >>> jax.eval_shape(depth, jnp.ones((2, 8, 12, 4))).shape
      (2, 16, 24, 1)

    References: as :class:`SegNet`.
    """

    def __init__(self, before: int, after: int, size: Sequence[int], **options: Any):
        self.size = tuple(size)
        self.conv = nnx.Conv(before, before, (3, 3), **options)
        self.out = nnx.Conv(before, after, (1, 1), **options)

    def __call__(self, x: Any) -> jax.Array:
        """`[B, H, W, after]`."""
        return resized(self.out(self.conv(x)), self.size)


def half(x: jax.Array) -> jax.Array:
    """Maxima of 2×2 windows."""
    return nnx.max_pool(x, (2, 2), strides=(2, 2))


def double(x: jax.Array) -> jax.Array:
    """Each value four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def max_pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maxima of 2×2 windows, and where they were: one of four, `[B, h, w, 4, C]`."""
    batch, height, width, channels = x.shape
    windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    windows = jnp.moveaxis(windows, 3, 2).reshape(batch, height // 2, width // 2, 4, -1)
    where = jnp.argmax(windows, axis=3, keepdims=True)  # the first of equals
    place = where == jnp.arange(4)[None, None, None, :, None]
    return jnp.sum(jnp.where(place, windows, 0), axis=3), place


def unpool(x: jax.Array, place: jax.Array) -> jax.Array:
    """Values back where the maxima were, and zeros beside them."""
    batch, height, width, channels = x.shape
    windows = jnp.where(place, x[:, :, :, None, :], 0)
    windows = windows.reshape(batch, height, width, 2, 2, channels)
    return jnp.moveaxis(windows, 2, 3).reshape(batch, 2 * height, 2 * width, channels)
