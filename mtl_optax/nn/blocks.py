"""Convolutional blocks that the networks for images are made of. NHWC.

Options are those of `flax.nnx.Conv` and `flax.nnx.BatchNorm` alike: `dtype` and `rngs`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# Weight of the old statistics in PyTorch, whose 0.1 is that of the batch.
MOMENTUM = 0.9


class Normalised(nnx.Module):
    """A convolution and its batch normalisation."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        width: int,
        *,
        strides: int = 1,
        dilation: int = 1,
        momentum: float = 0.99,
        **options: Any,
    ):
        self.conv = nnx.Conv(
            num_in,
            num_out,
            (width, width),
            strides=strides,
            kernel_dilation=dilation,
            use_bias=False,
            **options,
        )
        self.norm = nnx.BatchNorm(num_out, momentum=momentum, **options)

    def __call__(self, x: Any) -> jax.Array:
        """`[B, H, W, num_out]`."""
        return self.norm(self.conv(x))


class Residual(nnx.Module):
    """Normalised convolutions beside a shortcut, with ReLU after each and after all.

    Args:
      sizes: (channels in, channels out, width) of each convolution.
      **options: as in `Normalised`.

    The shortcut is a 1×1 convolution where the number of channels changes.
    """

    def __init__(self, sizes: Sequence[tuple[int, int, int]], **options: Any):
        num_in, num_out = sizes[0][0], sizes[-1][1]
        self.layers = nnx.List([Normalised(*size, **options) for size in sizes])
        self.shortcut = (
            None if num_in == num_out else Normalised(num_in, num_out, 1, **options)
        )

    def __call__(self, x: Any) -> jax.Array:
        """`[B, H, W, channels out]`, in the dtype of `x`."""
        inside = x
        for index, layer in enumerate(self.layers):
            inside = layer(inside if index == 0 else nnx.relu(inside))
        beside = x if self.shortcut is None else self.shortcut(x)
        return nnx.relu(inside + beside).astype(x.dtype)


def basic(num_in: int, num_out: int, **options: Any) -> Residual:
    """Two 3×3 convolutions."""
    return Residual([(num_in, num_out, 3), (num_out, num_out, 3)], **options)


def bottleneck(num_in: int, num_out: int, **options: Any) -> Residual:
    """A 3×3 convolution of a quarter of the channels, between two of 1×1."""
    hidden = max(num_out // 4, 1)
    sizes = [(num_in, hidden, 1), (hidden, hidden, 3), (hidden, num_out, 1)]
    return Residual(sizes, **options)


def resized(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """Images `[B, H, W, C]` at another size (height, width), bilinear."""
    height, width = size
    shape = (x.shape[0], height, width, x.shape[3])
    return x if x.shape == shape else jax.image.resize(x, shape, "bilinear")


class FuseScales(nnx.Module):
    """All maps of a pyramid at the size of the first, joined, and mixed by one layer.

    The layer is a 1×1 convolution, batch normalisation and ReLU, and keeps the channels
    of all maps together.

    Args:
      channels: of each map.
      **options: as in `Normalised`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import ConvBackbone, FuseScales
      >>> def features(images):
      ...     rngs = nnx.Rngs(0)
      ...     parts = ConvBackbone((4, 8), rngs=rngs), FuseScales((4, 8), rngs=rngs)
      ...     return nnx.Sequential(*parts)(images)
      >>> jax.eval_shape(features, jnp.ones((2, 16, 24, 3))).shape
      (2, 4, 6, 12)
    """

    def __init__(self, channels: Sequence[int], **options: Any):
        total = sum(channels)
        self.mix = Normalised(total, total, 1, **options)

    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """`[B, H, W, sum of channels]` from maps, the finest first."""
        size = maps[0].shape[1:3]
        joined = jnp.concatenate([resized(x, size) for x in maps], axis=-1)
        return nnx.relu(self.mix(joined)).astype(maps[0].dtype)
