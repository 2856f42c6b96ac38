"""Convolutions of a network as matrix products of patches.

In a scan, and more so under vmap over parameters, XLA's own convolution is many times
slower on a CPU: 20 times for six 3 x 3 layers of 32 channels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


def as_products(net: nnx.Module) -> nnx.Module:
    """Makes every `nnx.Conv` of the network compute with `product`; returns it."""
    for _, module in nnx.iter_graph(net):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = product
    return net


def product(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` of images, without dilation or groups.

    Args:
      images: `[B, H, W, C]`.
      kernel: `[h, w, C, D]`.
      strides: down and to the right.
      padding: as there.
      **options: dimension numbers and the like, which are not read.
    """
    height, width, _, outputs = kernel.shape
    if isinstance(padding, str):
        size = images.shape[1:3]
        padding = lax.padtype_to_pads(size, (height, width), strides, padding)
    wide = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    ends = wide.shape[1] - height + 1, wide.shape[2] - width + 1
    patches = [
        wide[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, outputs)
