"""The decoder of DeepLab-v3: looks at a map from near and far, and predicts. NHWC."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.blocks import MOMENTUM, Normalised, resized

RATES = (12, 24, 36)  # for maps of 1/8 of the image


class DeepLabHead(nnx.Module):
    """Predictions of each pixel from convolutions of several reaches, side by side.

    Beside one another: a 1×1 convolution, a dilated 3×3 one for each rate, and the mean
    of the whole map. Joined, they go through a 1×1 convolution, dropout, a 3×3
    convolution and the predicting one of 1×1, and are enlarged to `size` (bilinear).
    All but the last have batch normalisation and ReLU.

    Args:
      before: channels of the map.
      after: channels of the predictions.
      size: (H, W) of the predictions.
      width: channels inside, 256 as published.
      rates: of the dilation.
      dropout: of the joined features, in training.
      dtype: of the computation.
      rngs: for all layers; `dropout` or the default stream for the dropout.

    Cost: 16 M parameters for each task on the 2,048 channels of a ResNet-50, and more
    FLOPs than the plain encoder has.

    When not to use it: on small maps, of which a rate of 36 sees nothing but padding
    around the centre; see `DenseHead`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import DeepLabHead
      >>> def depth(features):
      ...     return DeepLabHead(8, 1, (32, 48), width=4, rngs=nnx.Rngs(0))(features)
      >>> jax.eval_shape(depth, jnp.ones((2, 4, 6, 8))).shape
      (2, 32, 48, 1)

    References:
      Chen et al., `Rethinking Atrous Convolution for Semantic Image Segmentation
      <https://arxiv.org/abs/1706.05587>`_, 2017, with the layers of torchvision and of
      LibMTL's NYUv2 example.
    """

    def __init__(
        self,
        before: int,
        after: int,
        size: Sequence[int],
        *,
        width: int = 256,
        rates: Sequence[int] = RATES,
        dropout: float = 0.5,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.size = tuple(size)
        layer = {"momentum": MOMENTUM, **options}
        self.near = Normalised(before, width, 1, **layer)
        self.far = nnx.List(
            [Normalised(before, width, 3, dilation=rate, **layer) for rate in rates]
        )
        self.all = Normalised(before, width, 1, **layer)
        self.join = Normalised((2 + len(rates)) * width, width, 1, **layer)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.conv = Normalised(width, width, 3, **layer)
        self.out = nnx.Conv(width, after, (1, 1), **options)

    def __call__(self, x: Any) -> jax.Array:
        """`[B, H, W, after]` from maps `[B, h, w, before]`."""
        branches = [layer(x) for layer in (self.near, *self.far)]
        mean = self.all(x.mean(axis=(1, 2), keepdims=True))
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        joined = nnx.relu(jnp.concatenate(branches, axis=-1))
        seen = self.dropout(nnx.relu(self.join(joined)))
        return resized(self.out(nnx.relu(self.conv(seen))), self.size)
