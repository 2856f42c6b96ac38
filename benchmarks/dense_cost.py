"""What networks for dense tasks cost: parameters; memory and time of CTAL's step.

Parameters are counted from shapes, memory is what XLA reserves for a compiled step
beside its arguments: neither needs the step to run. Times are interleaved; a larger
grid than those in `TIMED` is only compiled.
"""

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.timing import environment, interleave, summarise, write_json
from mtl_optax.nn import (
    CTAL,
    ConvBackbone,
    EMANet,
    FuseScales,
    HardSharing,
    MultiScaleEMANet,
    ViTBackbone,
)
from mtl_optax.nn.blocks import bottleneck

OUTPUTS = {"depth": 1, "normals": 3, "segmentation": 13}
SMALL, WIDE = (18, 36, 72, 144), (64, 128, 256, 512)
BACKBONES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv, small": (ConvBackbone, SMALL),
    "conv, wide": (ConvBackbone, WIDE),
    "ViT, small": (ViTBackbone, SMALL),
    "ViT, wide": (partial(ViTBackbone, width=384, depth=12, heads=6), SMALL),
}
PARTS = ("parameters", "memory", "network", "times")
# name -> options of CTAL
VARIANTS: dict[str, dict[str, int]] = {
    "plain": {},
    "checkpoint=1": {"checkpoint": 1},
    "checkpoint=8": {"checkpoint": 8},
    "pool=2": {"pool": 2},
    "pool=2, checkpoint=1": {"pool": 2, "checkpoint": 1},
}
TIMED = ((8, 8), (16, 16), (16, 32))
ONLY_COMPILED = ((32, 64), (72, 96))


def single_task(backbone: Any, channels: tuple[int, ...], num_out: int) -> nnx.Module:
    """The backbone and what `EMANet` has for an initial prediction of one task."""
    rngs = nnx.Rngs(0)
    encoder = nnx.Sequential(
        backbone(channels, rngs=rngs), FuseScales(channels, rngs=rngs)
    )
    head = nnx.Sequential(
        bottleneck(sum(channels), 256, rngs=rngs),
        bottleneck(256, 256, rngs=rngs),
        nnx.Conv(256, num_out, (1, 1), rngs=rngs),
    )
    return HardSharing(encoder, {"only": head})


def ema_net(
    backbone: Any, channels: tuple[int, ...], grid: tuple[int, int]
) -> nnx.Module:
    rngs = nnx.Rngs(0)
    encoder = nnx.Sequential(
        backbone(channels, rngs=rngs), FuseScales(channels, rngs=rngs)
    )
    return EMANet(encoder, OUTPUTS, sum(channels), grid, rngs=rngs)


def multi_scale(
    backbone: Any, channels: tuple[int, ...], grid: tuple[int, int]
) -> nnx.Module:
    rngs = nnx.Rngs(0)
    found = backbone(channels, rngs=rngs)
    return MultiScaleEMANet(found, OUTPUTS, channels, grid, rngs=rngs)


def count(build: Callable[[], Any]) -> int:
    """Parameters of a network that is not made."""
    state = nnx.state(nnx.eval_shape(build), nnx.Param)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state))


def parameters(grid: tuple[int, int]) -> dict[str, dict[str, int]]:
    """Of each kind of network with each backbone."""
    table = {}
    for name, (backbone, channels) in BACKBONES.items():
        alone = [
            count(partial(single_task, backbone, channels, num_out))
            for num_out in OUTPUTS.values()
        ]
        table[name] = {
            "backbone": count(lambda b=backbone, c=channels: b(c, rngs=nnx.Rngs(0))),
            "single-task nets": sum(alone),
            "EMANet": count(partial(ema_net, backbone, channels, grid)),
            "MultiScaleEMANet": count(partial(multi_scale, backbone, channels, grid)),
        }
    return table


@cache
def step(
    grid: tuple[int, int], batch: int, features: int, variant: str
) -> tuple[Any, Any]:
    """A training step of CTAL alone with three tasks, compiled, and its arguments."""

    def build() -> CTAL:
        options = VARIANTS[variant]
        return CTAL(OUTPUTS, features, grid, rngs=nnx.Rngs(0), **options)

    graphdef, shapes = nnx.split(nnx.eval_shape(build))
    tx = optax.adam(1e-3)

    def train(params: Any, state: Any, maps: Any) -> Any:
        def loss(params: Any, maps: Any) -> Any:
            outputs = nnx.merge(graphdef, params)(maps)
            return sum(jnp.mean(y**2) for y in outputs.values())

        # The maps' gradient too, which the layers before need
        grads, back = jax.grad(loss, argnums=(0, 1))(params, maps)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, back

    maps = {
        task: jax.ShapeDtypeStruct((batch, *grid, features), jnp.float32)
        for task in OUTPUTS
    }
    arguments = shapes, jax.eval_shape(tx.init, shapes), maps
    return jax.jit(train).lower(*arguments).compile(), arguments


def network_step(grid: tuple[int, int], batch: int, variant: str) -> Any:
    """A training step of a narrow EMANet, compiled: CTAL's memory beside the rest."""
    height, width = (4 * size for size in grid)

    def build() -> EMANet:
        rngs = nnx.Rngs(0)
        parts = ConvBackbone(SMALL, rngs=rngs), FuseScales(SMALL, rngs=rngs)
        sizes = {"trunk": 64, "features": 32, **VARIANTS[variant]}
        encoder = nnx.Sequential(*parts)
        return EMANet(encoder, OUTPUTS, sum(SMALL), grid, rngs=rngs, **sizes)

    graphdef, params, rest = nnx.split(nnx.eval_shape(build), nnx.Param, ...)

    def train(params: Any, rest: Any, images: Any) -> Any:
        def loss(params: Any) -> Any:
            net = nnx.merge(graphdef, params, rest, copy=True)
            outputs, initial = net.with_initial(images)
            found = jax.tree.leaves((outputs, initial))
            return sum(jnp.mean(y**2) for y in found), nnx.state(net, nnx.BatchStat)

        grads, rest = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), rest

    images = jax.ShapeDtypeStruct((batch, height, width, 3), jnp.float32)
    return jax.jit(train).lower(params, rest, images).compile()


def temporaries(compiled: Any) -> int:
    """Bytes beside arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def times(grid: tuple[int, int], batch: int, features: int, rounds: int) -> Any:
    """Of all variants, against the plain one of the same round."""
    random = np.random.default_rng(0)
    contenders = {}
    for name in VARIANTS:
        compiled, shapes = step(grid, batch, features, name)
        arguments = jax.tree.map(
            lambda x: jnp.asarray(random.normal(size=x.shape) / 10, x.dtype), shapes
        )
        contenders[name] = partial(run, compiled, arguments)
    return summarise(interleave(contenders, rounds), "plain")


def run(compiled: Any, arguments: Any) -> None:
    jax.block_until_ready(compiled(*arguments))


def show_parameters(table: dict[str, dict[str, int]]) -> None:
    print("| backbone | its own | 3 single-task nets | EMANet | MultiScaleEMANet |")
    print("|---|---|---|---|---|")
    for name, row in table.items():
        alone = row["single-task nets"]
        cells = [f"{row[n]:,} ({row[n] / alone:.2f})" for n in list(row)[2:]]
        print(f"| {name} | {row['backbone']:,} | {alone:,} | {' | '.join(cells)} |")


def heading() -> list[str]:
    names = ["grid", *VARIANTS]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def show(grid: tuple[int, int], cells: list[str]) -> None:
    print(f"| {grid[0]}×{grid[1]} | {' | '.join(cells)} |", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="the smallest grid only")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    timed = TIMED[:1] if options.quick else TIMED
    grids = timed if options.quick else timed + ONLY_COMPILED
    record: dict[str, Any] = {"environment": environment()}

    size = options.batch, options.features
    if "parameters" in options.parts:
        record["parameters"] = parameters((16, 16))
        show_parameters(record["parameters"])
    if "memory" in options.parts:
        record["temporary_bytes"] = {}
        print("\nMiB of temporary arrays, CTAL alone", *heading(), sep="\n")
        for grid in grids:
            found = {name: temporaries(step(grid, *size, name)[0]) for name in VARIANTS}
            record["temporary_bytes"]["x".join(map(str, grid))] = found
            show(grid, [f"{value / 2**20:.1f}" for value in found.values()])
    if "network" in options.parts:
        record["network_temporary_bytes"] = {}
        print("\nMiB of temporary arrays, EMANet", *heading(), sep="\n")
        for grid in timed[-1:]:
            found = {
                name: temporaries(network_step(grid, options.batch, name))
                for name in VARIANTS
            }
            record["network_temporary_bytes"]["x".join(map(str, grid))] = found
            show(grid, [f"{value / 2**20:.1f}" for value in found.values()])
    if "times" in options.parts:
        record["times"] = {}
        print("\nCPU time over that of the plain step", *heading(), sep="\n")
        for grid in timed:
            summary = times(grid, *size, options.rounds)
            record["times"]["x".join(map(str, grid))] = summary
            ratios = [row["cpu_ratio"] for row in summary.values()]
            show(
                grid,
                ["{median:.2f} ({lower:.2f}-{upper:.2f})".format(**r) for r in ratios],
            )
    if options.out:
        write_json(options.out, record)
    return 0


if __name__ == "__main__":
    main()
