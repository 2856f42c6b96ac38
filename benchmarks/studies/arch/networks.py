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
from mtl_optax.study.data.digits import CANVAS
from mtl_optax.study.data.networks import linear, trunk
from mtl_optax.study.engine.problem import Now

Kind = Callable[..., nnx.Module]
Classes = dict[str, int]  # of each task
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


def in_stages(kind: Kind, classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """A trunk for each task, with something between the layers of all.

    CrossStitch mixes their features; in LTB the second layers choose among the first.
    """
    own = {task: stages(rngs) for task in classes}
    return kind(own, heads(classes, rngs=rngs))


def mixed(kind: Kind, classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Four experts: MMoE mixes all for each task, DSelectK's gates take two each."""
    experts, decoders = trunks(4, rngs), heads(classes, rngs=rngs)
    return kind(experts, decoders, num_features=PIXELS, rngs=rngs)


def cgc(classes: Classes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Two shared experts, and one for each task."""
    own = {task: trunks(1, rngs) for task in classes}
    made_of = trunks(2, rngs), own, heads(classes, rngs=rngs)
    return nn.CGC(*made_of, num_features=PIXELS, rngs=rngs)


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


def plain(net: Any, images: Any, losses_of: LossesOf, now: Now) -> Losses:
    """The losses of the outputs."""
    del now
    return losses_of(net(images))


def with_terms(net: Any, images: Any, losses_of: LossesOf, now: Now) -> Losses:
    """The terms of DSelectK, or the losses of small towers, added to those of tasks."""
    del now
    towers = (losses_of,) if isinstance(net, nn.SelfAuxiliary) else ()
    outputs, terms = net.with_auxiliary(images, *towers)
    return {task: loss + terms[task] for task, loss in losses_of(outputs).items()}


def drawn(net: Any, images: Any, losses_of: LossesOf, now: Now) -> Losses:
    """The losses under the branches that LTB draws at this time of training."""
    schedule = nn.ltb_schedule(now.progress * EPOCHS // 1, EPOCHS)
    return losses_of(net(images, key=now.key, **schedule))


class Architecture(NamedTuple):
    """A network and how it is trained."""

    build: Kind  # (classes, rngs=) -> from images to logits
    losses: Callable[[Any, Any, LossesOf, Now], Losses] = plain


ARCHITECTURES = {
    "hard_sharing": Architecture(hard_sharing),
    # So wide that they have no fewer parameters than four and six trunks.
    "hard_sharing_x4": Architecture(partial(hard_sharing, width=172)),
    "hard_sharing_x6": Architecture(partial(hard_sharing, width=222)),
    "cross_stitch": Architecture(partial(in_stages, nn.CrossStitch)),
    "mmoe": Architecture(partial(mixed, nn.MMoE)),
    "cgc": Architecture(cgc),
    "ple": Architecture(ple),
    "ple_no_shared_gate": Architecture(partial(ple, shared_gate=False)),
    "dselect_k": Architecture(partial(mixed, nn.DSelectK), with_terms),
    "ltb": Architecture(partial(in_stages, nn.LTB), drawn),
    "soft_modular": Architecture(SoftModular),
    "self_auxiliary": Architecture(self_auxiliary, with_terms),
}
