"""EMA-Net on a pyramid of feature maps: initial predictions on every scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn.blocks import FuseScales, basic, resized
from mtl_optax.nn.ctal import AffinityLearning, Maps
from mtl_optax.nn.ema_net import Initial, Outputs, head
from mtl_optax.nn.feature_propagation import FeaturePropagation
from mtl_optax.nn.sharing import one_input


class MultiScaleEMANet(nnx.Module):
    """`EMANet` whose tasks predict on every scale and pass on what they have found.

    From the coarsest scale to the finest, two residual blocks of each task read the
    backbone's map and what was passed on from the scale before, and predict. Between
    scales, `FeaturePropagation` lets tasks exchange features. The task's features of
    all scales, joined at the finest by `FuseScales`, go through `AffinityLearning` and
    a final head as in `EMANet`.

    The initial predictions are to be learned too: :math:`L_k` = the mean over the
    scales' initial losses :math:`+` the final one; see the example of :class:`EMANet`,
    which fits both networks.

    Args:
      backbone: any module from images to a list of maps, the finest first, as
        `ConvBackbone` and `ViTBackbone`.
      outputs: task -> channels of its prediction.
      channels: of each map.
      grid: (H, W) of the finest map.
      features: channels in CTAL and after it.
      reference_fpm_order: see `FeaturePropagation`.
      dtype: of the computation, but that in the backbone.
      rngs: for all but the backbone.
      **options: of `CTAL`: `gamma`, `checkpoint`, `pool`.

    Shared: all but the prediction layers on each scale, the value convolutions and the
    enlargement behind CTAL, and the final heads. Auxiliary terms: none; see
    `with_initial`.

    Raises:
      ValueError: when called, if the finest map is not as large as the grid.

    Cost: as `EMANet`, and about T times the blocks of a decoder with as many scales.

    When not to use it: see `EMANet`, which has fewer parameters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import ConvBackbone, MultiScaleEMANet
      >>> def predictions(images):
      ...     rngs = nnx.Rngs(0)
      ...     backbone, outputs = ConvBackbone((4, 8), rngs=rngs), {"a": 1, "b": 5}
      ...     net = MultiScaleEMANet(
      ...         backbone, outputs, (4, 8), (4, 4), features=4, rngs=rngs
      ...     )
      ...     return net.with_initial(images)
      >>> outputs, initial = jax.eval_shape(predictions, jnp.ones((2, 16, 16, 3)))
      >>> outputs["b"].shape, [y.shape for y in initial["a"]]
      ((2, 16, 16, 5), [(2, 16, 16, 1), (2, 16, 16, 1)])

    References:
      Sinodinos and Armanfard, see :class:`CTAL`. INFERRED: the features that are joined
      are those of the initial predictions.
    """

    def __init__(
        self,
        backbone: Any,
        outputs: Mapping[str, int],
        channels: Sequence[int],
        grid: Sequence[int],
        *,
        features: int = 128,
        reference_fpm_order: bool = False,
        dtype: Any = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        layer = {"dtype": dtype, "rngs": rngs}
        tasks = self.tasks = tuple(outputs)
        self.backbone = backbone
        before = [
            c + wider for c, wider in zip(channels, [*channels[1:], 0], strict=True)
        ]
        self.trunks = nnx.Dict(
            {
                task: nnx.List(
                    [
                        nnx.Sequential(basic(b, c, **layer), basic(c, c, **layer))
                        for b, c in zip(before, channels, strict=True)
                    ]
                )
                for task in tasks
            }
        )
        self.propagation = nnx.List(
            [
                FeaturePropagation(
                    tasks, c, reference_order=reference_fpm_order, **layer
                )
                for c in channels[1:]
            ]
        )
        self.fuse = nnx.Dict({task: FuseScales(channels, **layer) for task in tasks})
        self.affinity = AffinityLearning(
            tasks, sum(channels), features, grid=grid, **options, **layer
        )
        own: dict[str, Any] = {}
        for task, num_out in outputs.items():
            first = [nnx.Conv(c, num_out, (1, 1), **layer) for c in channels]
            final = head(features, num_out, **layer)
            own[task] = nnx.Dict(initial=nnx.List(first), head=final)
        self.own = nnx.Dict(own)

    def __call__(self, x: Any) -> Outputs:
        """Predictions `[B, H, W, channels]` of each task for images `[B, H, W, C]`."""
        return self.with_initial(x)[0]

    def with_initial(self, x: Any) -> tuple[Outputs, Initial]:
        """Predictions, and for each task a list of initial ones, the finest first."""
        one_input("MultiScaleEMANet", x, self.tasks)
        size, scales = x.shape[1:3], self._scales(self.backbone(x))
        joined = {t: self.fuse[t]([maps[t] for maps in scales]) for t in self.tasks}
        refined = self.affinity(joined)
        outputs, initial = {}, {}
        for task in self.tasks:
            part = self.own[task]
            outputs[task] = resized(part["head"](refined[task]), size)
            initial[task] = [
                resized(first(maps[task]), size)
                for first, maps in zip(part["initial"], scales, strict=True)
            ]
        return outputs, initial

    def _scales(self, pyramid: Sequence[jax.Array]) -> list[Maps]:
        """The tasks' features on each scale, the finest first."""
        scales: list[Maps] = []  # the coarsest first, while it grows
        for s in reversed(range(len(pyramid))):
            seen = dict.fromkeys(self.tasks, pyramid[s])
            if scales:
                passed = self.propagation[s](scales[-1])
                for task, x in passed.items():
                    wide = resized(x, pyramid[s].shape[1:3])
                    seen[task] = jnp.concatenate([pyramid[s], wide], axis=-1)
            scales.append(
                {task: self.trunks[task][s](seen[task]) for task in self.tasks}
            )
        return scales[::-1]
