"""Multi-task attention network, MTAN (Liu et al. 2019)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.blocks import Normalised, resized
from mtl_optax.nn.mixtures import Module
from mtl_optax.nn.sharing import one_input


class MTAN(nnx.Module):
    r"""One shared network, from whose stages each task takes what its masks let pass.

    Stage s of the shared network is :math:`u_s = f_s(v_{s-1})` (all but its last block)
    and :math:`v_s = g_s(u_s)` (its last block). For each task

    .. math:: r_s = A_s([u_s, B_{s-1}(r_{s-1})]) \odot v_s \qquad y = D(r_S)

    with masks A of the task, two 1×1 convolutions with batch normalisation and a
    sigmoid (the first mask reads :math:`u_1` alone), and residual blocks B that all
    tasks share, followed by 2×2 max-pooling where the next stage is half as large, and
    enlarged (bilinear) where it is twice as large. NHWC.

    Args:
      stages: for each of the S stages the pair (f, g) of callable modules; or one
        module, whose method `pairs(x)` gives all (u, v): `SegNet`, `ResNet`.
      channels: for each stage the channels of u and v.
      decoders: task -> D, a callable module from the last stage.
      stem: a module before the first stage, or None.
      expansion: masks and residual blocks have 1/expansion of the channels inside.
      dtype: of the computation in masks and residual blocks, as in `flax.nnx.Conv`.
      rngs: for masks and residual blocks.

    Shared: stem, stages and residual blocks. Auxiliary terms: none.

    Raises:
      ValueError: if channels and stages differ in number, or, when called, if a stage
        is neither as large as the one before nor half nor twice as large.

    Cost: the shared network once; for each task the masks and residual blocks, whose
    batch statistics therefore move T times a call.

    When not to use it: on inputs that are no images. The last stage of a wide ResNet
    makes its masks large: about :math:`3 c^2` / expansion weights a task and stage.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import MTAN
      >>> rngs = nnx.Rngs(0)
      >>> conv = lambda *size, **options: nnx.Conv(*size, (3, 3), rngs=rngs, **options)
      >>> net = MTAN(
      ...     [(conv(3, 4), conv(4, 4)), (conv(4, 8, strides=2), conv(8, 8))],
      ...     channels=[4, 8],
      ...     decoders={"depth": conv(8, 1), "segmentation": conv(8, 5)},
      ...     rngs=rngs,
      ... )
      >>> {task: y.shape for task, y in net(jnp.ones((2, 8, 8, 3))).items()}
      {'depth': (2, 4, 4, 1), 'segmentation': (2, 4, 4, 5)}

    References:
      Liu et al., `End-to-End Multi-Task Learning with Attention
      <https://arxiv.org/abs/1803.10704>`_, CVPR 2019. The form is that of LibMTL, which
      leaves the residual blocks out of the shared parameters though all tasks use them.
    """

    def __init__(
        self,
        stages: Any,
        channels: Sequence[int],
        decoders: Mapping[str, Module],
        *,
        stem: Module | None = None,
        expansion: int = 4,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        is_module = hasattr(stages, "pairs")
        if not is_module and len(stages) != len(channels):
            raise ValueError(
                f"MTAN: channels has {len(channels)} entries for {len(stages)} stages."
            )
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = stem
        self.stages = (
            stages if is_module else nnx.List([nnx.List(list(s)) for s in stages])
        )
        self.blocks = nnx.List(
            [
                Residual(before, after, max(after // expansion, 1), **options)
                for before, after in pairwise(channels)
            ]
        )
        own: dict[str, Any] = {}
        for task, decoder in decoders.items():
            masks = [
                Mask((1 if s == 0 else 2) * c, c, max(c // expansion, 1), **options)
                for s, c in enumerate(channels)
            ]
            own[task] = nnx.Dict(masks=nnx.List(masks), decoder=decoder)
        self.own = nnx.Dict(own)

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task for images `[B, H, W, C]`."""
        one_input("MTAN", x, self.own)
        pairs = self._pairs(x if self.stem is None else self.stem(x))
        return {
            task: part["decoder"](self._attend(part["masks"], pairs))
            for task, part in self.own.items()
        }

    def _pairs(self, x: Any) -> list[tuple[Any, Any]]:
        """The u and v of each stage."""
        if not isinstance(self.stages, nnx.List):
            return self.stages.pairs(x)
        pairs = []
        for first, last in self.stages:
            before = first(x)
            x = last(before)
            pairs.append((before, x))
        return pairs

    def _attend(self, masks: Any, pairs: Sequence[tuple[Any, Any]]) -> jax.Array:
        """The last stage as a task sees it."""
        before, value = pairs[0]
        seen = masks[0](before) * value
        for mask, block, (before, value) in zip(
            masks[1:], self.blocks, pairs[1:], strict=True
        ):
            fitted = pooled(block(seen), before.shape[1:3])
            seen = mask(jnp.concatenate([before, fitted], axis=-1)) * value
        return seen


class Mask(nnx.Module):
    """A task's mask in (0, 1): two 1×1 convolutions, each with batch normalisation."""

    def __init__(self, num_in: int, num_out: int, hidden: int, **options: Any):
        self.first = Normalised(num_in, hidden, 1, **options)
        self.second = Normalised(hidden, num_out, 1, **options)

    def __call__(self, x: Any) -> jax.Array:
        """The mask `[B, H, W, num_out]`, in the dtype of `x`."""
        return nnx.sigmoid(self.second(nnx.relu(self.first(x)))).astype(x.dtype)


class Residual(nnx.Module):
    """A bottleneck block with a 1×1 shortcut between numbers of channels."""

    def __init__(self, num_in: int, num_out: int, hidden: int, **options: Any):
        sizes = [(num_in, hidden, 1), (hidden, hidden, 3), (hidden, num_out, 1)]
        self.layers = nnx.List([Normalised(*size, **options) for size in sizes])
        self.shortcut = Normalised(num_in, num_out, 1, **options)

    def __call__(self, x: Any) -> jax.Array:
        """`[B, H, W, num_out]`, in the dtype of `x`."""
        first, second, third = self.layers
        inside = third(nnx.relu(second(nnx.relu(first(x)))))
        return nnx.relu(inside + self.shortcut(x)).astype(x.dtype)


def pooled(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Images of the size asked for: as they are, 2×2 max-pooled, or twice as large."""
    if size == (2 * x.shape[1], 2 * x.shape[2]):
        return resized(x, size)
    if x.shape[1:3] != size:
        x = nnx.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
    if x.shape[1:3] != size:
        raise ValueError(
            f"MTAN: a stage of size {size} follows one that is {x.shape[1:3]} after "
            "2×2 pooling; stages keep the size, halve or double it."
        )
    return x
