"""The table of architectures: each on tiny sizes, and what it promises.

A row brings every check of `test_nn_contract.py`. Encoders have batch normalisation
and dropout inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from mtl_optax.nn import (
    CGC,
    LTB,
    MLP,
    MTAN,
    PLE,
    VMTL,
    ColumnEmbedding,
    ConvBackbone,
    CrossStitch,
    DeepLabHead,
    DenseHead,
    DistanceNet,
    DSelectK,
    EMANet,
    FuseScales,
    HardSharing,
    MMoE,
    MultiScaleEMANet,
    ResNet,
    SegNet,
    SelfAuxiliary,
    SoftModularNet,
    same_class_inputs,
    vmtl_init,
    vmtl_losses,
)

TASKS = ("a", "b")
ROWS = jax.random.normal(jax.random.key(0), (16, 6))
LARGER = jax.random.normal(jax.random.key(2), (16, 8, 8, 3))
IMAGES = jax.random.normal(jax.random.key(1), (16, 4, 4, 3))


class Encoder(nnx.Module):
    """A layer without bias, which batch normalisation would take out again."""

    def __init__(self, layer, width, dtype, rngs):
        self.layer = layer
        self.norm = nnx.BatchNorm(width, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.dropout(jnp.tanh(self.norm(self.layer(x))))


class Parts:
    """What the networks are made of, from one stream of random numbers."""

    def __init__(self, rngs, dtype=jnp.float32):
        self.options = {"dtype": dtype, "rngs": rngs}

    def encoder(self, before=6, after=8):
        layer = nnx.Linear(before, after, use_bias=False, **self.options)
        return Encoder(layer, after, **self.options)

    def convolution(self, before, after, strides=1):
        layer = nnx.Conv(
            before, after, (3, 3), strides=strides, use_bias=False, **self.options
        )
        return Encoder(layer, after, **self.options)

    def decoder(self, before=8):
        return nnx.Linear(before, 1, **self.options)

    def decoders(self):
        return {task: self.decoder() for task in TASKS}


class Pooled(nnx.Module):
    """A decoder from the mean of an image."""

    def __init__(self, decoder):
        self.decoder = decoder

    def __call__(self, x):
        return self.decoder(x.mean(axis=(1, 2)))


@dataclass(frozen=True)
class Architecture:
    """One row.

    Fields:
      build: `(rngs, dtype) -> network`, its modules computing in `dtype`.
      shared: the attributes under which leaves are shared.
      x: the inputs, a tree of arrays `[B, ...]`.
      call: `(network, x, key) -> (outputs [B, 1], auxiliary)`.
      reached: whether a leaf of a task, by the name of its path, gets gradients from
        the losses of others.
      falls: what is left of the summed loss after the contract's steps.
      statistics: whether there is batch normalisation inside.
      by_task: whether it takes a dict from tasks to inputs of each.
    """

    build: Callable[[nnx.Rngs, Any], nnx.Module]
    shared: frozenset[str]
    x: Any = None
    call: Callable[..., Any] = lambda net, x, key: (net(x), {})
    reached: Callable[[str], bool] = lambda path: False
    falls: float = 0.5
    statistics: bool = True
    by_task: bool = False


def hard_sharing(rngs, dtype):
    parts = Parts(rngs, dtype)
    return HardSharing(parts.encoder(), parts.decoders())


def on_resnet(rngs, dtype):
    """A dilated ResNet, and the heads of DeepLab."""
    options = {"dtype": dtype, "rngs": rngs}
    encoder = ResNet((1, 1, 1), width=4, dilated=True, **options)
    sizes = {"width": 8, "rates": (2,), "dropout": 0.1}
    heads = {
        task: DeepLabHead(encoder.channels[-1], 1, (8, 8), **sizes, **options)
        for task in TASKS
    }
    return HardSharing(encoder, heads)


def on_segnet(rngs, dtype):
    options = {"dtype": dtype, "rngs": rngs}
    heads = {task: DenseHead(4, 1, (8, 8), **options) for task in TASKS}
    encoder = SegNet(width=4, depths=(2, 2), **options)
    return MTAN(encoder, encoder.channels, heads, expansion=2, **options)


class Columns(nnx.Module):
    """Rows of a table from those of numbers: two of them in classes."""

    def __init__(self, **options):
        self.rows = ColumnEmbedding(4, (3, 3), sizes=2, **options)

    def __call__(self, x):
        classes = jnp.sign(x[:, 4:]).astype(int) + 1
        return self.rows({"numbers": x[:, :4], "categories": classes})


def on_columns(rngs, dtype):
    options = {"dtype": dtype, "rngs": rngs}
    encoder = nnx.Sequential(Columns(**options), MLP(8, (16, 8), **options))
    return HardSharing(encoder, Parts(rngs, dtype).decoders())


class Molecules(nnx.Module):
    """Two atoms and no third one, from rows of their coordinates."""

    def __init__(self, **options):
        sizes = {"width": 8, "rounds": 1, "bumps": 4, "cutoff": 4.0}
        self.net = DistanceNet(3, **sizes, **options)

    def __call__(self, x):
        positions = jnp.pad(x.reshape(-1, 2, 3), ((0, 0), (0, 1), (0, 0)))
        atoms = jnp.broadcast_to(jnp.array([[1, 2, 0]]), (len(x), 3))
        return self.net({"atoms": atoms, "positions": positions})


def on_molecules(rngs, dtype):
    parts = Parts(rngs, dtype)
    return HardSharing(Molecules(**parts.options), parts.decoders())


def over_pixels(net, x, key):
    """Means of the outputs over the image."""
    return {task: y.mean(axis=(1, 2)) for task, y in net(x).items()}, {}


def cross_stitch(rngs, dtype):
    parts = Parts(rngs, dtype)
    stages = {task: [parts.encoder(), parts.encoder(8)] for task in TASKS}
    return CrossStitch(stages, parts.decoders())


def mmoe(rngs, dtype):
    parts = Parts(rngs, dtype)
    experts = [parts.encoder() for _ in range(3)]
    return MMoE(experts, parts.decoders(), num_features=6, rngs=rngs)


def cgc(rngs, dtype):
    parts = Parts(rngs, dtype)
    own = {"a": [parts.encoder()], "b": [parts.encoder(), parts.encoder()]}
    return CGC([parts.encoder()], own, parts.decoders(), num_features=6, rngs=rngs)


def ple(rngs, dtype, shared_gate=True):
    parts = Parts(rngs, dtype)
    own = {task: [[parts.encoder()], [parts.encoder(8)]] for task in TASKS}
    return PLE(
        [[parts.encoder()], [parts.encoder(8)]],
        own,
        parts.decoders(),
        input_shape=(6,),
        shared_gate=shared_gate,
        rngs=rngs,
    )


def mtan(rngs, dtype):
    parts = Parts(rngs, dtype)
    return MTAN(
        [
            (parts.convolution(4, 4), parts.convolution(4, 4)),
            (parts.convolution(4, 8, strides=2), parts.convolution(8, 8)),
        ],
        [4, 8],
        {task: Pooled(parts.decoder()) for task in TASKS},
        stem=parts.convolution(3, 4),
        expansion=2,
        dtype=dtype,
        rngs=rngs,
    )


def dselect_k(rngs, dtype):
    parts = Parts(rngs, dtype)
    experts = [parts.encoder() for _ in range(4)]
    return DSelectK(experts, parts.decoders(), num_features=6, rngs=rngs)


def ltb(rngs, dtype):
    parts = Parts(rngs, dtype)
    stages = {task: [parts.encoder(), parts.encoder(8)] for task in TASKS}
    return LTB(stages, parts.decoders())


def vmtl(rngs, dtype):
    """One class: its logit is the output, and cross entropy is zero."""
    return VMTL(6, 1, TASKS, latent_dim=8, dropout=0.1, dtype=dtype, rngs=rngs)


def with_divergences(net, x, key):
    """From the second step on, when priors are made of the other tasks."""
    labels = jnp.zeros(len(x), int)
    batch = dict.fromkeys(TASKS, (x, labels))
    surrogates = {task: same_class_inputs(x, labels, [batch[task]]) for task in TASKS}
    options = {"beta": 1e-3, "eta": 1e-3, "surrogates": surrogates, "num_samples": 2}
    state = vmtl_init(net)._replace(step=jnp.int32(1))
    divergences, terms = vmtl_losses(net, state, batch, key=key, **options)
    return net(x, terms.state), divergences


def ema_net(rngs, dtype):
    backbone = ConvBackbone((4,), dtype=dtype, rngs=rngs)
    encoder = nnx.Sequential(backbone, FuseScales((4,), dtype=dtype, rngs=rngs))
    sizes = {"trunk": 8, "features": 4, "gamma": 0.5}
    return EMANet(
        encoder, dict.fromkeys(TASKS, 1), 4, (2, 2), **sizes, dtype=dtype, rngs=rngs
    )


def multi_scale_ema_net(rngs, dtype):
    backbone = ConvBackbone((4, 4), dtype=dtype, rngs=rngs)
    sizes = {"features": 4, "gamma": 0.5}
    return MultiScaleEMANet(
        *(backbone, dict.fromkeys(TASKS, 1), (4, 4), (2, 2)),
        **sizes,
        dtype=dtype,
        rngs=rngs,
    )


def with_initial(net, x, key):
    """Means of the outputs over the image, and the losses of initial predictions."""

    def means(outputs):
        return {task: y.mean(axis=(1, 2)) for task, y in outputs.items()}

    outputs, initial = net.with_initial(x)
    losses = [
        mean_squares(means(dict(zip(initial, scale, strict=True))), x)
        for scale in zip(*initial.values(), strict=True)
    ]
    return means(outputs), {task: sum(each[task] for each in losses) for task in TASKS}


def self_auxiliary(rngs, dtype):
    parts = Parts(rngs, dtype)
    towers = {
        task: nnx.Sequential(nnx.Linear(8, 8, **parts.options), parts.decoder())
        for task in TASKS
    }
    base = HardSharing(parts.encoder(), towers)
    return SelfAuxiliary(base, lambda task: parts.decoder(), gamma=0.3)


def soft_modular(rngs, dtype, variant="code"):
    return SoftModularNet(
        *(6, 2, 1),
        num_layers=3,
        num_modules=2,
        module_dim=8,
        variant=variant,
        tasks=TASKS,
        embed_dim=16,
        gate_dim=8,
        dtype=dtype,
        rngs=rngs,
    )


def with_auxiliary(net, x, key):
    return net.with_auxiliary(x)


def mean_squares(outputs, x):
    """A loss a task; targets are sines of the inputs."""
    rows = jax.tree.leaves(x)[0]
    mean = rows.reshape(len(rows), -1).mean(axis=1, keepdims=True)
    losses = {}
    for t, task in enumerate(TASKS):
        chex.assert_equal_shape([outputs[task], mean])
        error = outputs[task].astype(jnp.float32) - jnp.sin(3 * mean + t)
        losses[task] = jnp.mean(error**2)
    return losses


ARCHITECTURES = {
    "CGC": Architecture(cgc, frozenset({"experts"}), ROWS),
    "CrossStitch": Architecture(
        cross_stitch, frozenset({"stages", "coefficients"}), ROWS
    ),
    "DSelectK": Architecture(
        dselect_k, frozenset({"experts"}), ROWS, call=with_auxiliary
    ),
    "EMANet": Architecture(
        ema_net,
        frozenset({"backbone", "trunks", "affinity"}),
        LARGER,
        call=with_initial,
    ),
    "HardSharing": Architecture(
        hard_sharing, frozenset({"encoder"}), ROWS, by_task=True
    ),
    "HardSharing on ResNet": Architecture(
        on_resnet, frozenset({"encoder"}), LARGER, call=over_pixels, by_task=True
    ),
    "HardSharing on columns": Architecture(
        on_columns, frozenset({"encoder"}), ROWS, statistics=False, by_task=True
    ),
    "HardSharing on molecules": Architecture(
        *(on_molecules, frozenset({"encoder"}), ROWS),
        falls=0.7,
        statistics=False,
        by_task=True,
    ),
    "LTB": Architecture(
        ltb,
        frozenset({"stages", "logits"}),
        ROWS,
        call=lambda net, x, key: (net(x, key=key), {}),
    ),
    "MMoE": Architecture(mmoe, frozenset({"experts"}), ROWS),
    "MTAN": Architecture(mtan, frozenset({"stem", "stages", "blocks"}), IMAGES),
    "MTAN on SegNet": Architecture(
        on_segnet, frozenset({"stages", "blocks"}), LARGER, call=over_pixels
    ),
    "MultiScaleEMANet": Architecture(
        multi_scale_ema_net,
        frozenset({"backbone", "trunks", "propagation", "fuse", "affinity"}),
        LARGER,
        call=with_initial,
    ),
    "PLE": Architecture(
        ple,
        frozenset({"experts", "gates"}),
        ROWS,
        reached=lambda path: "['experts'][0]" in path,
    ),
    "PLE without shared gate": Architecture(
        lambda rngs, dtype: ple(rngs, dtype, shared_gate=False),
        frozenset({"experts"}),
        ROWS,
    ),
    "SelfAuxiliary": Architecture(
        self_auxiliary,
        frozenset({"base"}),
        ROWS,
        call=lambda net, x, key: net.with_auxiliary(x, lambda ys: mean_squares(ys, x)),
        by_task=True,
    ),
    "SoftModularNet": Architecture(
        soft_modular,
        frozenset({"encoder", "task_bias", "router", "layers", "head"}),
        ROWS,
        statistics=False,
        by_task=True,
    ),
    "SoftModularNet of the paper": Architecture(
        lambda rngs, dtype: soft_modular(rngs, dtype, "paper"),
        frozenset({"encoder", "task_bias", "router", "layers"}),
        ROWS,
        statistics=False,
        by_task=True,
    ),
    "VMTL": Architecture(  # a linear network
        vmtl,
        frozenset({"encoder"}),
        ROWS,
        call=with_divergences,
        falls=0.65,
        statistics=False,
        by_task=True,
    ),
}

# Modules that are no networks of several tasks.
LAYERS = {
    "AffinityLearning",
    "BayesLinear",
    "CTAL",
    "ColumnEmbedding",
    "ConvBackbone",
    "DeepLabHead",
    "DenseHead",
    "DistanceNet",
    "FuseScales",
    "MLP",
    "ResNet",
    "SegNet",
    "TaskBatchNorm",
    "ViTBackbone",
}
