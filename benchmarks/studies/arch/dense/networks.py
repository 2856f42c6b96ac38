"""The networks of `mtl-optax study arch` for dense tasks: one backbone, equal decoders.

The backbone is `ConvBackbone`, of which the last map is read, at 1/8 of the image. The
decoders are what EMANet has after its backbone, without what it adds: the affinities
between tasks, and the predictions on the way. All are small and coarse, so that three
networks train in minutes on two cores.
"""

from typing import Any

import jax
from flax import nnx

from benchmarks.studies.arch.dense.measures import CHANNELS, Outputs
from benchmarks.studies.arch.dense.photographs import CROP
from mtl_optax import nn
from mtl_optax.nn.blocks import Normalised, bottleneck, resized

STAGES = (16, 32)  # channels at 1/4 and at 1/8 of the image
FEATURES = 32  # of a task at 1/8
REFINED = 16  # of a task at 1/4
ABOUT = (
    "One backbone, residual blocks at 1/4 and 1/8 of the image, and one decoder a task "
    "up to 1/4, enlarged to the image. mtan adds masks and blocks to the backbone; "
    "ctal adds affinities to the decoders, and initial predictions, which are trained "
    "too: its losses are the sums of both."
)


class Decoder(nnx.Module):
    """Two bottlenecks, a step up to 1/4 of the image, two more, and the output."""

    def __init__(self, num_out: int, *, rngs: nnx.Rngs):
        self.before = nnx.Sequential(
            bottleneck(STAGES[-1], FEATURES, rngs=rngs),
            bottleneck(FEATURES, FEATURES, rngs=rngs),
        )
        self.up = Normalised(FEATURES, REFINED, 3, rngs=rngs)
        self.after = nnx.Sequential(
            bottleneck(REFINED, REFINED, rngs=rngs),
            bottleneck(REFINED, REFINED, rngs=rngs),
            nnx.Conv(REFINED, num_out, (1, 1), rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, 64, 64, num_out]` from `[B, 8, 8, C]`."""
        wide = resized(self.before(x), (CROP // 4, CROP // 4))
        return resized(self.after(nnx.relu(self.up(wide))), (CROP, CROP))


def hard_sharing(rngs: nnx.Rngs) -> nnx.Module:
    """One backbone for all tasks."""
    return nn.HardSharing(backbone(rngs), decoders(rngs))


def mtan(rngs: nnx.Rngs) -> nnx.Module:
    """The same backbone, from whose stages each task takes what its masks let pass."""
    made = nn.ConvBackbone(STAGES, rngs=rngs)
    stages = [
        (nnx.Sequential(down, nnx.relu), block)
        for down, block in zip(made.down, made.blocks, strict=True)
    ]
    stem = nnx.Sequential(made.stem, nnx.relu)
    return nn.MTAN(stages, STAGES, decoders(rngs), stem=stem, rngs=rngs)


def ctal(rngs: nnx.Rngs) -> nnx.Module:
    """The same backbone, and affinities between all positions of all tasks."""
    grid = (CROP // 8, CROP // 8)
    return nn.EMANet(
        *(backbone(rngs), CHANNELS, STAGES[-1], grid),
        trunk=FEATURES,
        features=REFINED,
        rngs=rngs,
    )


def initial_and_final(net: Any, images: Any) -> tuple[Outputs, Outputs]:
    """All that EMANet predicts."""
    final, initial = net.with_initial(images)
    return {task: found[0] for task, found in initial.items()}, final


def backbone(rngs: nnx.Rngs) -> nnx.Module:
    """From images `[B, 64, 64, 3]` to `[B, 8, 8, 32]`."""
    return nnx.Sequential(nn.ConvBackbone(STAGES, rngs=rngs), lambda maps: maps[-1])


def decoders(rngs: nnx.Rngs) -> dict[str, Decoder]:
    """One a task."""
    return {task: Decoder(count, rngs=rngs) for task, count in CHANNELS.items()}
