"""Residual networks, plain or dilated, with the parameter names of torchvision. NHWC.

What differs from torchvision is the layout of arrays alone, so that `load_weights`
reads public weight files: `conv1`, `bn1`, `layer1[0].conv1`, `.bn1`, `.downsample[0]`.
The average pooling and the classifier `fc` are left to the heads.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from mtl_optax.nn.blocks import MOMENTUM


def norm(channels: int, **options: Any) -> nnx.BatchNorm:
    """With PyTorch's numbers."""
    return nnx.BatchNorm(channels, momentum=MOMENTUM, epsilon=1e-5, **options)


class ResNet(nnx.Module):
    r"""A convolution, max-pooling, and stages of residual blocks: a map of features.

    The map has 1/32 of the image's height and width, with `dilated` 1/8: stages after
    the second do not stride, and convolutions there reach 2 and 4 times as far
    (dilation), so that each weight still sees what it was trained to see.

    Args:
      blocks: number of blocks of each stage. Their channels double from stage to stage.
      wide: whether blocks are bottlenecks, 1×1, 3×3 and 1×1 with four times as many
        channels at their ends; else two 3×3.
      width: channels of the first stage, 64 of the published networks.
      dilated: see above.
      num_in: channels of the image.
      dtype: of the computation.
      rngs: for all layers.

    Attributes:
      channels: of the map after each stage.

    Cost: dilated, 16 times as many positions in the fourth stage, so about 4 times the
    FLOPs of the plain network.

    When not to use it: dilated for one label an image, where the plain one is cheaper.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import ResNet
      >>> def maps(images, **options):
      ...     return ResNet((1, 1, 1, 1), width=4, **options, rngs=nnx.Rngs(0))(images)
      >>> jax.eval_shape(maps, jnp.ones((2, 64, 96, 3))).shape
      (2, 2, 3, 32)
      >>> jax.eval_shape(
      ...     lambda x: maps(x, dilated=True), jnp.ones((2, 64, 96, 3))
      ... ).shape
      (2, 8, 12, 32)

    References:
      He et al., `Deep Residual Learning for Image Recognition
      <https://arxiv.org/abs/1512.03385>`_, CVPR 2016; Yu et al., `Dilated Residual
      Networks <https://arxiv.org/abs/1705.09914>`_, CVPR 2017. As in torchvision the
      bottleneck strides in its 3×3 convolution; dilations are those of LibMTL's
      `resnet_dilated`, which are torchvision's `replace_stride_with_dilation`.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        wide: bool = False,
        *,
        width: int = 64,
        dilated: bool = False,
        num_in: int = 3,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = conv(num_in, width, 7, strides=2, **options)
        self.bn1 = norm(width, **options)
        self.names = tuple(f"layer{number}" for number in range(1, len(blocks) + 1))
        block = Bottleneck if wide else Basic
        before, dilation, channels = width, 1, []
        for stage, (name, count) in enumerate(zip(self.names, blocks, strict=True)):
            inside = width * 2**stage
            strides, first = (1 if stage == 0 else 2), dilation
            if dilated and stage > 1:
                strides, dilation = 1, 2 * dilation
            layer = [block(before, inside, strides, (first, dilation), **options)]
            before = inside * block.expansion
            layer += [
                block(before, inside, 1, (dilation, dilation), **options)
                for _ in range(count - 1)
            ]
            setattr(self, name, nnx.List(layer))
            channels.append(before)
        self.channels = tuple(channels)

    def __call__(self, x: Any) -> jax.Array:
        """The last map, `[B, h, w, channels[-1]]`, of images `[B, H, W, num_in]`."""
        return self.maps(x)[-1]

    def maps(self, x: Any) -> list[jax.Array]:
        """The map after each stage, the finest first."""
        maps, x = [], self.stem(x)
        for name in self.names:
            for block in getattr(self, name):
                x = block(x)
            maps.append(x)
        return maps

    def pairs(self, x: Any) -> list[tuple[jax.Array, jax.Array]]:
        """Of each stage the map before its last block, and its last: for `MTAN`."""
        pairs, x = [], self.stem(x)
        for name in self.names:
            *first, last = getattr(self, name)
            for block in first:
                x = block(x)
            pairs.append((x, last(x)))
            x = pairs[-1][1]
        return pairs

    def in_stages(self) -> list[nnx.Sequential]:
        """Stem and stages as modules in a row, for what puts something between."""
        stem = nnx.Sequential(self.conv1, self.bn1, nnx.relu, max_pool)
        layers = [nnx.Sequential(*getattr(self, name)) for name in self.names]
        return [stem, *layers]

    def stem(self, x: Any) -> jax.Array:
        """What stands before the stages, at 1/4 of the image's size."""
        return max_pool(nnx.relu(self.bn1(self.conv1(x))))


class Basic(nnx.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(
        self,
        before: int,
        inside: int,
        strides: int,
        dilations: tuple[int, int],
        **options: Any,
    ):
        first, second = dilations
        self.conv1 = conv(before, inside, 3, strides=strides, dilation=first, **options)
        self.bn1 = norm(inside, **options)
        self.conv2 = conv(inside, inside, 3, dilation=second, **options)
        self.bn2 = norm(inside, **options)
        self.downsample = shortcut(before, inside, strides, **options)

    def __call__(self, x: Any) -> jax.Array:
        """`[B, h, w, inside]`."""
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + beside(self.downsample, x))


class Bottleneck(nnx.Module):
    """A 3×3 convolution between two of 1×1, beside a shortcut."""

    expansion = 4

    def __init__(
        self,
        before: int,
        inside: int,
        strides: int,
        dilations: tuple[int, int],
        **options: Any,
    ):
        after, (reach, _) = inside * self.expansion, dilations
        self.conv1 = conv(before, inside, 1, **options)
        self.bn1 = norm(inside, **options)
        self.conv2 = conv(inside, inside, 3, strides=strides, dilation=reach, **options)
        self.bn2 = norm(inside, **options)
        self.conv3 = conv(inside, after, 1, **options)
        self.bn3 = norm(after, **options)
        self.downsample = shortcut(before, after, strides, **options)

    def __call__(self, x: Any) -> jax.Array:
        """`[B, h, w, 4 inside]`."""
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nnx.relu(y + beside(self.downsample, x))


def max_pool(x: Any) -> jax.Array:
    """Maxima of 3×3 windows, two apart."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def conv(
    before: int,
    after: int,
    size: int,
    *,
    strides: int = 1,
    dilation: int = 1,
    **options: Any,
) -> nnx.Conv:
    """Without bias, padded alike on all sides (Flax's "SAME" is not, with strides)."""
    return nnx.Conv(
        before,
        after,
        (size, size),
        strides=strides,
        kernel_dilation=dilation,
        padding=dilation * (size // 2),
        use_bias=False,
        **options,
    )


def shortcut(before: int, after: int, strides: int, **options: Any) -> nnx.List | None:
    """A 1×1 convolution and its normalisation, where the shape changes."""
    if before == after and strides == 1:
        return None
    layer = conv(before, after, 1, strides=strides, **options)
    return nnx.List([layer, norm(after, **options)])


def beside(downsample: nnx.List | None, x: Any) -> jax.Array:
    """What the shortcut adds."""
    if downsample is None:
        return x
    layer, normalised = downsample
    return normalised(layer(x))
