"""Two small encoders of images, to feature maps at 1/4, 1/8, ... of their size. NHWC.

Both have the interface of the encoders in the papers on dense prediction, so that a
large, trained one takes their place: called with images `[B, H, W, C]` they return a
list of maps, the finest first. `FuseScales` makes one map of the list.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_optax.nn.blocks import Normalised, basic

STEM = 4  # the finest map has 1/4 of the image's height and width


class ConvBackbone(nnx.Module):
    """Residual blocks at 1/4 of the image's size, then at half of it, and so on.

    Args:
      channels: of each map, the finest first; their number is that of the maps.
      num_in: channels of the image.
      dtype: of the computation.
      rngs: for all layers.

    When not to use it: where a trained encoder is at hand.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import ConvBackbone
      >>> def maps(images):
      ...     return ConvBackbone((4, 8, 16), rngs=nnx.Rngs(0))(images)
      >>> [x.shape for x in jax.eval_shape(maps, jnp.ones((2, 32, 32, 3)))]
      [(2, 8, 8, 4), (2, 4, 4, 8), (2, 2, 2, 16)]
    """

    def __init__(
        self,
        channels: Sequence[int] = (18, 36, 72, 144),
        num_in: int = 3,
        *,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        first = channels[0]
        self.stem = Normalised(num_in, first, 3, strides=2, **options)
        before = [first, *channels[:-1]]
        self.down = nnx.List(
            [
                Normalised(b, c, 3, strides=2, **options)
                for b, c in zip(before, channels, strict=True)
            ]
        )
        self.blocks = nnx.List([basic(c, c, **options) for c in channels])

    def __call__(self, x: Any) -> list[jax.Array]:
        """Maps `[B, H/4, W/4, channels[0]]`, `[B, H/8, W/8, channels[1]]`, ..."""
        maps, x = [], nnx.relu(self.stem(x))
        for down, block in zip(self.down, self.blocks, strict=True):
            x = block(nnx.relu(down(x)))
            maps.append(x)
        return maps


class ViTBackbone(nnx.Module):
    """A vision transformer on patches of 4×4 pixels, and a pyramid of its last map.

    Pre-norm blocks of self-attention over all patches and an MLP four times as wide,
    with fixed sine-cosine position codes, so that no size is built in. Coarser maps are
    strided convolutions of the last one, as in the plain pyramid of Li et al.

    Args:
      channels: of each map, the finest first; their number is that of the maps.
      num_in: channels of the image.
      width: of the tokens, a multiple of 4 and of `heads`.
      depth: number of blocks.
      heads: of the attention.
      dtype: of the computation.
      rngs: for all layers.

    Raises:
      ValueError: if `width` is not a multiple of 4 and of `heads`.

    Cost: attention grows with the square of the number of patches, HW/16.

    When not to use it: on large images; and where a trained encoder is at hand.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import ViTBackbone
      >>> def maps(images):
      ...     return ViTBackbone((4, 8), width=8, heads=2, rngs=nnx.Rngs(0))(images)
      >>> [x.shape for x in jax.eval_shape(maps, jnp.ones((2, 32, 32, 3)))]
      [(2, 8, 8, 4), (2, 4, 4, 8)]

    References:
      Dosovitskiy et al., `An Image is Worth 16x16 Words
      <https://arxiv.org/abs/2010.11929>`_, ICLR 2021; Li et al., `Exploring Plain
      Vision Transformer Backbones for Object Detection
      <https://arxiv.org/abs/2203.16527>`_, ECCV 2022.
    """

    def __init__(
        self,
        channels: Sequence[int] = (18, 36, 72, 144),
        num_in: int = 3,
        *,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        if width % 4 or width % heads:
            raise ValueError(
                f"ViTBackbone: width must be a multiple of 4 and of heads={heads}; got "
                f"{width}."
            )
        options = {"dtype": dtype, "rngs": rngs}

        def strided(num_in: int, num_out: int, size: int) -> nnx.Conv:
            return nnx.Conv(num_in, num_out, (size, size), strides=size, **options)

        self.patches = strided(num_in, width, STEM)
        blocks = [TransformerBlock(width, heads, **options) for _ in range(depth)]
        self.blocks = nnx.List(blocks)
        self.norm = nnx.LayerNorm(width, **options)
        self.scales = nnx.List(
            [strided(width, c, 2**s) for s, c in enumerate(channels)]
        )

    def __call__(self, x: Any) -> list[jax.Array]:
        """Maps `[B, H/4, W/4, channels[0]]`, `[B, H/8, W/8, channels[1]]`, ..."""
        x = self.patches(x)
        batch, height, width, features = x.shape
        codes = jnp.asarray(position_codes(height, width, features), x.dtype)
        tokens = (x + codes[None]).reshape(batch, height * width, features)
        for block in self.blocks:
            tokens = block(tokens)
        x = self.norm(tokens).reshape(x.shape)
        return [scale(x) for scale in self.scales]


class TransformerBlock(nnx.Module):
    """Self-attention and an MLP, each on normalised tokens and beside a shortcut."""

    def __init__(self, width: int, heads: int, **options: Any):
        self.heads = heads
        self.norms = nnx.List([nnx.LayerNorm(width, **options) for _ in range(2)])
        self.queries_keys_values = nnx.Linear(width, 3 * width, **options)
        self.out = nnx.Linear(width, width, **options)
        self.wide = nnx.Linear(width, 4 * width, **options)
        self.narrow = nnx.Linear(4 * width, width, **options)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens `[B, P, width]`."""
        joined = self.queries_keys_values(self.norms[0](tokens))
        shape = (*tokens.shape[:2], self.heads, -1)
        query, key, value = (x.reshape(shape) for x in jnp.split(joined, 3, axis=-1))
        seen = jax.nn.dot_product_attention(query, key, value)
        tokens = tokens + self.out(seen.reshape(tokens.shape))
        return tokens + self.narrow(nnx.gelu(self.wide(self.norms[1](tokens))))


def position_codes(height: int, width: int, features: int) -> np.ndarray:
    """Sines and cosines `[height, width, features]` of both coordinates."""
    frequencies = 100.0 ** -np.linspace(0, 1, features // 4)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    angles = np.stack([rows, columns], axis=-1)[..., None] * frequencies
    codes = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return codes.reshape(height, width, features)
