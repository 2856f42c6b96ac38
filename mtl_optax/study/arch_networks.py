"""The architectures of `mtl-optax study arch` that take the digits' vectors of pixels.

All are made of the trunk 144-128-64 of the other studies on digits, or of copies of it,
and of linear heads. So they differ in what is shared and how, and in their size; two
plain networks with a wider trunk tell one from the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import nnx

from mtl_optax import nn
from mtl_optax.study.data import CANVAS
from mtl_optax.study.model import linear, trunk
from mtl_optax.study.problem import Clock

Classes = dict[str, int]
Losses = dict[str, jax.Array]
LossesOf = Callable[[dict[str, jax.Array]], Losses]
PIXELS = CANVAS**2
# Epochs of the schedule of LTB: 1,000 batches of 64 out of 4,000 images.
EPOCHS = 16


def heads(classes: Classes, width: int = 64, *, rngs: nnx.Rngs) -> dict[str, Any]:
    """A linear layer for each task."""
    return {task: linear(width, count, rngs=rngs) for task, count in classes.items()}


def trunks(count: int, rngs: nnx.Rngs) -> list[Any]:
    """Experts, or copies for tasks."""
    return [trunk(rngs=rngs) for _ in range(count)]


def stages(rngs: nnx.Rngs) -> list[Any]:
    """The trunk in two, so that something can stand between its layers."""
    layers = trunk(rngs=rngs).layers
    return [nnx.Sequential(*layers[:2]), nnx.Sequential(*layers[2:])]


def hard_sharing(classes: Classes, width: int = 64, *, rngs: nnx.Rngs) -> nnx.Module:
    """One trunk for all tasks."""
    encoder = trunk(width, rngs=rngs)  # before the heads: drawn as in MultiTaskMLP
    return nn.HardSharing(encoder, heads(classes, width, rngs=rngs))


def cross_stitch(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """A trunk for each task, stitched between its layers."""
    own = {task: stages(rngs) for task in classes}
    return nn.CrossStitch(own, heads(classes, rngs=rngs))


def mmoe(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Four experts, mixed for each task."""
    experts = trunks(4, rngs)
    return nn.MMoE(experts, heads(classes, rngs=rngs), num_features=PIXELS, rngs=rngs)


def cgc(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Two shared experts, and one for each task."""
    own = {task: trunks(1, rngs) for task in classes}
    return nn.CGC(
        *(trunks(2, rngs), own, heads(classes, rngs=rngs)),
        num_features=PIXELS,
        rngs=rngs,
    )


def ple(classes: Classes, shared_gate: bool = True, *, rngs: nnx.Rngs) -> nnx.Module:
    """The experts of `cgc`, mixed after each of their two layers."""

    def levels(count: int) -> list[list[Any]]:
        experts = [stages(rngs) for _ in range(count)]
        return [[expert[level] for expert in experts] for level in (0, 1)]

    own = {task: levels(1) for task in classes}
    return nn.PLE(
        *(levels(2), own, heads(classes, rngs=rngs)),
        input_shape=(PIXELS,),
        shared_gate=shared_gate,
        rngs=rngs,
    )


def dselect_k(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Four experts, of which each task's gate takes two."""
    experts = trunks(4, rngs)
    decoders = heads(classes, rngs=rngs)
    return nn.DSelectK(experts, decoders, num_features=PIXELS, rngs=rngs)


def ltb(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """A trunk for each task, whose second layer chooses among the first ones."""
    own = {task: stages(rngs) for task in classes}
    return nn.LTB(own, heads(classes, rngs=rngs))


class SoftModular(nnx.Module):
    """Soft modularisation, with the task as input and one head for all."""

    def __init__(self, classes: Classes, *, rngs: nnx.Rngs):
        self.counts = tuple(classes.items())
        self.net = nn.SoftModularNet(
            *(PIXELS, len(classes), max(classes.values())),
            module_dim=64,
            tasks=tuple(classes),
            embed_dim=128,
            gate_dim=64,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """Logits of each task."""
        answers = self.net(images)
        return {task: answers[task][:, :count] for task, count in self.counts}


def self_auxiliary(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Hard sharing with a second head for each task, of half its rank."""

    def tower(task: str) -> nnx.Sequential:
        rank = classes[task] // 2
        return nnx.Sequential(
            linear(64, rank, rngs=rngs), linear(rank, classes[task], rngs=rngs)
        )

    return nn.SelfAuxiliary(hard_sharing(classes, rngs=rngs), tower)


def plain(net: Any, images: Any, losses_of: LossesOf, clock: Clock | None) -> Losses:
    """The losses of the outputs."""
    del clock
    return losses_of(net(images))


def with_terms(net: Any, images: Any, losses_of: LossesOf, _: Clock | None) -> Losses:
    """The terms of DSelectK, added to the loss of their task."""
    outputs, terms = net.with_auxiliary(images)
    return {task: loss + terms[task] for task, loss in losses_of(outputs).items()}


def with_towers(net: Any, images: Any, losses_of: LossesOf, _: Clock | None) -> Losses:
    """The losses of the small towers, added to those of the main ones."""
    outputs, terms = net.with_auxiliary(images, losses_of)
    return {task: loss + terms[task] for task, loss in losses_of(outputs).items()}


def drawn(net: Any, images: Any, losses_of: LossesOf, clock: Clock | None) -> Losses:
    """The losses under the branches that LTB draws at this time of training."""
    assert clock is not None
    schedule = nn.ltb_schedule(clock.progress * EPOCHS // 1, EPOCHS)
    return losses_of(net(images, key=clock.key, **schedule))


class Architecture(NamedTuple):
    """A network and how it is trained."""

    build: Callable[..., nnx.Module]  # (classes, rngs=) -> from images to logits
    losses: Callable[[Any, Any, LossesOf, Clock | None], Losses] = plain
    clocked: bool = False  # whether `losses` needs a Clock


# Widths whose networks have no fewer parameters than those of four and of six trunks.
WIDE = {"hard_sharing_x4": 172, "hard_sharing_x6": 222}
ARCHITECTURES: dict[str, Architecture] = {
    "hard_sharing": Architecture(hard_sharing),
    **{
        name: Architecture(partial(hard_sharing, width=width))
        for name, width in WIDE.items()
    },
    "cross_stitch": Architecture(cross_stitch),
    "mmoe": Architecture(mmoe),
    "cgc": Architecture(cgc),
    "ple": Architecture(ple),
    "ple_no_shared_gate": Architecture(partial(ple, shared_gate=False)),
    "dselect_k": Architecture(dselect_k, with_terms),
    "ltb": Architecture(ltb, drawn, clocked=True),
    "soft_modular": Architecture(SoftModular),
    "self_auxiliary": Architecture(self_auxiliary, with_towers),
}
