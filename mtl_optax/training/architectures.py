"""Architectures by name, made of the parts of a data set."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import nnx

from mtl_optax import nn
from mtl_optax.data.dataset import Columns, Dataset, Images, Molecules
from mtl_optax.training.encoders import DENSE, Parts, encoders_for, outputs_of

EXPERTS = 4  # of mixtures that all tasks share
POSITIONS = 2048  # of which EMA-Nets take the affinities of all pairs


def hard_sharing(parts: Parts) -> Any:
    """One encoder for all tasks."""
    return nn.HardSharing(parts.encoder(), parts.towers())


def in_stages(kind: Callable[..., Any], parts: Parts) -> Any:
    """An encoder for each task, with something between the stages of all."""
    stages = {task: parts.stages() for task in parts.tasks}
    return kind(stages, parts.towers())


def mixed(kind: Callable[..., Any], parts: Parts) -> Any:
    """Encoders as experts, mixed for each task."""
    experts = [parts.encoder() for _ in range(EXPERTS)]
    return kind(experts, parts.towers(), **parts.gates())


def cgc(parts: Parts) -> Any:
    """One expert that all share, and one for each task."""
    own = {task: [parts.encoder()] for task in parts.tasks}
    return nn.CGC([parts.encoder()], own, parts.towers(), **parts.gates())


def ple(parts: Parts) -> Any:
    """The experts of `cgc`, mixed after each half."""
    levels = [[half] for half in parts.halves()]
    own = {task: [[half] for half in parts.halves()] for task in parts.tasks}
    return nn.PLE(
        *(levels, own, parts.towers()),
        input_shape=parts.shape,
        read=parts.read,
        rngs=parts.options["rngs"],
    )


def mtan(parts: Parts) -> Any:
    """One encoder, and masks of each task on its stages."""
    encoder = parts.encoder()
    # Masks on SegNet are as wide as its stages, in ResNets a fourth, as published.
    expansion = 1 if isinstance(encoder, nn.SegNet) else 4
    return nn.MTAN(
        *(encoder, encoder.channels, parts.towers()),
        expansion=expansion,
        **parts.options,
    )


def self_auxiliary(parts: Parts) -> Any:
    """Hard sharing, and a second, smaller tower for each task in training."""
    base = nn.HardSharing(parts.encoder(), parts.towers(deep=True))
    return nn.SelfAuxiliary(base, parts.small_tower)


class SoftModular(nnx.Module):
    """Soft modularisation with one head for all tasks, as wide as the widest needs."""

    def __init__(self, parts: Parts):
        self.sizes = tuple((t, outputs_of(task)) for t, task in parts.tasks.items())
        self.net = nn.SoftModularNet(
            *(parts.shape[0], len(self.sizes), max(size for _, size in self.sizes)),
            module_dim=parts.features,
            tasks=tuple(parts.tasks),
            embed_dim=parts.width,
            gate_dim=parts.features,
            **parts.options,
        )

    @property
    def own(self) -> Any:
        """What belongs to each task."""
        return self.net.own

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Outputs of each task, or of those that x has inputs of."""
        outputs = self.net(x)
        return {t: outputs[t][:, :size] for t, size in self.sizes if t in outputs}


def ema_net(parts: Parts) -> Any:
    """Initial predictions, affinities between tasks, final predictions."""
    grid = parts.map_size()
    return nn.EMANet(
        *(parts.encoder(), sizes(parts), parts.features, grid),
        trunk=4 * parts.width,
        features=2 * parts.width,
        pool=coarse(grid),
        **parts.options,
    )


def multi_scale_ema_net(parts: Parts) -> Any:
    """The same with predictions on every scale of an encoder that is not dilated."""
    pyramid = Pyramid(parts.encoder(dilated=False))
    height, width = parts.shape[:2]
    grid = -(-height // 4), -(-width // 4)
    return nn.MultiScaleEMANet(
        *(pyramid, sizes(parts), pyramid.encoder.channels, grid),
        features=2 * parts.width,
        pool=coarse(grid),
        **parts.options,
    )


class Pyramid(nnx.Module):
    """All maps of an encoder."""

    def __init__(self, encoder: Any):
        self.encoder = encoder

    def __call__(self, x: Any) -> list[jax.Array]:
        """The finest first."""
        return self.encoder.maps(x)


def sizes(parts: Parts) -> dict[str, int]:
    """Channels of each task's predictions."""
    return {name: outputs_of(task) for name, task in parts.tasks.items()}


def coarse(grid: tuple[int, int]) -> int:
    """Over how many positions affinities are pooled, so that few pairs are left."""
    height, width = grid
    fit = [p for p in range(1, min(grid) + 1) if height % p == 0 and width % p == 0]
    few = [p for p in fit if height * width // p**2 <= POSITIONS]
    return (few or fit[-1:])[0]


class Architecture(NamedTuple):
    """A network of several tasks by name.

    Fields:
      build: from the parts of a data set.
      inputs: which it reads.
      encoders: of images, that it stands on; empty for all.
      dense: whether it predicts pixels alone.
    """

    build: Callable[[Parts], Any]
    inputs: tuple[type, ...] = (Images, Columns, Molecules)
    encoders: tuple[str, ...] = ()
    dense: bool = False


ARCHITECTURES = {
    "hps": Architecture(hard_sharing),
    "cross_stitch": Architecture(partial(in_stages, nn.CrossStitch)),
    "mmoe": Architecture(partial(mixed, nn.MMoE)),
    "cgc": Architecture(cgc),
    "ple": Architecture(ple),
    "dselect_k": Architecture(partial(mixed, nn.DSelectK)),
    "mtan": Architecture(mtan, (Images,)),
    "ltb": Architecture(partial(in_stages, nn.LTB)),
    "self_auxiliary": Architecture(self_auxiliary),
    "soft_modular": Architecture(SoftModular, (Columns, Molecules)),
    "ema_net": Architecture(ema_net, (Images,), ("resnet50", "small"), dense=True),
    "multi_scale_ema_net": Architecture(
        multi_scale_ema_net, (Images,), ("small",), dense=True
    ),
}


def choices(dataset: Dataset) -> dict[str, list[str]]:
    """The architectures that fit a data set, and for each its encoders.

    The first encoder is the default.
    """
    encoders, found = encoders_for(dataset), {}
    is_dense = all(task.kind in DENSE for task in dataset.tasks)
    for name, arch in ARCHITECTURES.items():
        fits = type(dataset.inputs) in arch.inputs
        fits &= is_dense or not arch.dense
        if fits and (left := [e for e in encoders if e in (arch.encoders or encoders)]):
            found[name] = left
    return found
