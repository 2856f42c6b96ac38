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
    *,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` of images `[B, H, W, C]`, without dilation.

    Args:
      images: `[B, H, W, groups * C]`.
      kernel: `[h, w, C, groups * D]`.
      strides: down and to the right.
      padding: as there.
      feature_group_count: the number of groups.
      **options: dimension numbers and the like, which are not read.
    """
    groups = feature_group_count
    height, width, channels, outputs = kernel.shape
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
    if groups == 1:
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, outputs)
    weights = kernel.reshape(height * width, channels, groups, outputs // groups)
    shape = (*patches[0].shape[:3], groups, channels)
    terms = [
        jnp.einsum("bhwgc,cgd->bhwgd", patch.reshape(shape), own)
        for patch, own in zip(patches, weights, strict=True)
    ]
    return sum(terms[1:], terms[0]).reshape(*shape[:3], outputs)
