"""EMA-Net: initial predictions, cross-task affinities, final predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from mtl_optax.nn.blocks import bottleneck, resized
from mtl_optax.nn.ctal import AffinityLearning
from mtl_optax.nn.mixtures import Module
from mtl_optax.nn.sharing import one_input

Outputs = dict[str, jax.Array]
Initial = dict[str, list[jax.Array]]


class EMANet(nnx.Module):
    """Dense prediction of several tasks that exchange affinities between positions.

    From the features of a shared encoder a trunk of each task, two residual blocks,
    makes its features, from which it predicts a first time. `AffinityLearning` refines
    the features of all tasks together; from these, two residual blocks of the task
    predict. All predictions are enlarged to the size of the image (bilinear).

    The initial predictions are to be learned too:
    :math:`L_k = ` initial :math:`+` final, see the example.

    Args:
      backbone: any module from images to features `[B, H, W, num_features]`.
      outputs: task -> channels of its prediction.
      num_features: channels of the backbone's features.
      grid: their (H, W), mostly a fourth of the image's.
      trunk: channels of the initial features.
      features: channels in CTAL and after it.
      dtype: of the computation, but that in the backbone.
      rngs: for all but the backbone.
      **options: of `CTAL`: `gamma`, `checkpoint`, `pool`.

    Shared: backbone, the trunks of the initial features and all of `AffinityLearning`
    but its value convolutions and enlargement, since all tasks depend on them through
    the affinities. Auxiliary terms: none; see `with_initial`.

    Raises:
      ValueError: when called, if the features are not as large as the grid.

    Cost: that of `CTAL`, which grows with the square of the number of positions; two
    decoders a task.

    When not to use it: on images of varying size; where labels are not one a pixel.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from mtl_optax.nn import (
      ...     ConvBackbone,
      ...     EMANet,
      ...     FuseScales,
      ...     depth_loss,
      ...     segmentation_loss,
      ... )
      >>> def build(rngs):
      ...     parts = ConvBackbone((4, 8), rngs=rngs), FuseScales((4, 8), rngs=rngs)
      ...     encoder = nnx.Sequential(*parts)
      ...     outputs = {"depth": 1, "segmentation": 5}
      ...     return EMANet(
      ...         encoder, outputs, 12, (4, 6), trunk=8, features=4, rngs=rngs
      ...     )
      >>> loss_fns = {"depth": depth_loss, "segmentation": segmentation_loss}
      >>> def losses_fn(net, images, labels):
      ...     outputs, initial = net.with_initial(images)
      ...     losses = {}
      ...     for task, loss_fn in loss_fns.items():
      ...         first = [loss_fn(y, labels[task]) for y in initial[task]]
      ...         losses[task] = sum(first) / len(first) + loss_fn(
      ...             outputs[task], labels[task]
      ...         )
      ...     return losses
      >>> images = jnp.ones((2, 16, 24, 3))
      >>> labels = {
      ...     "depth": jnp.ones((2, 16, 24, 1)),
      ...     "segmentation": jnp.zeros((2, 16, 24), int),
      ... }
      >>> def losses(images, labels):
      ...     return losses_fn(build(nnx.Rngs(0)), images, labels)
      >>> jax.eval_shape(losses, images, labels)["depth"].shape
      ()

    References:
      Sinodinos and Armanfard, see :class:`CTAL`, whose first version has this name.
      There the encoder is a trained HRNet or ResNet.
    """

    def __init__(
        self,
        backbone: Module,
        outputs: Mapping[str, int],
        num_features: int,
        grid: Sequence[int],
        *,
        trunk: int = 256,
        features: int = 128,
        dtype: Any = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        layer = {"dtype": dtype, "rngs": rngs}
        self.tasks, self.backbone = tuple(outputs), backbone
        self.trunks = nnx.Dict(
            {
                task: nnx.Sequential(
                    bottleneck(num_features, trunk, **layer),
                    bottleneck(trunk, trunk, **layer),
                )
                for task in outputs
            }
        )
        self.affinity = AffinityLearning(
            self.tasks, trunk, features, grid=grid, **options, **layer
        )
        own: dict[str, Any] = {}
        for task, channels in outputs.items():
            first = nnx.Conv(trunk, channels, (1, 1), **layer)
            own[task] = nnx.Dict(initial=first, head=head(features, channels, **layer))
        self.own = nnx.Dict(own)

    def __call__(self, x: Any) -> Outputs:
        """Predictions `[B, H, W, channels]` of each task for images `[B, H, W, C]`."""
        return self.with_initial(x)[0]

    def with_initial(self, x: Any) -> tuple[Outputs, Initial]:
        """Predictions, and for each task a list of its one initial prediction."""
        one_input("EMANet", x, self.tasks)
        seen = self.backbone(x)
        maps = {task: self.trunks[task](seen) for task in self.tasks}
        refined = self.affinity(maps)
        size = x.shape[1:3]
        outputs, initial = {}, {}
        for task in self.tasks:
            part = self.own[task]
            outputs[task] = resized(part["head"](refined[task]), size)
            initial[task] = [resized(part["initial"](maps[task]), size)]
        return outputs, initial


def head(num_in: int, num_out: int, **options: Any) -> nnx.Sequential:
    """Two residual blocks and a 1×1 convolution."""
    return nnx.Sequential(
        bottleneck(num_in, num_in, **options),
        bottleneck(num_in, num_in, **options),
        nnx.Conv(num_in, num_out, (1, 1), **options),
    )
