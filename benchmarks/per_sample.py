"""One loss a sample: a Gramian step by `per_sample_grads`, beside the other ways.

A step is the forward pass, the Gramian of the samples' gradients, weights from it, and
the gradient that they weigh; "plain" is the gradient of the mean. The ways: ours; one
gradient a sample by `jax.vmap(jax.grad)`; and where torch and TorchJD are installed,
its autogram engine with `batch_dim=0` on the same network, which makes the gradients of
one module after the other. Weights are row sums of the Gramian, so that no solver is in
the numbers, or those of UPGrad.

    python -m benchmarks.per_sample --quick
    python -m benchmarks.per_sample --out benchmarks/results/per_sample.json
"""

import argparse
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before torch: its waiting threads would otherwise take most of the time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import mtl_optax as mtl
from benchmarks import timing

CLASSES = 10


class MLP(nn.Module):
    """Layers of one width."""

    width: int = 1024

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[B, 10]` of images `[B, 784]`."""
        for _ in range(3):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(CLASSES)(x)


class ConvNet(nn.Module):
    """Convolutions with GroupNorm."""

    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[B, 10]` of images `[B, 32, 32, 3]`."""
        for width, stride in ((1, 1), (2, 2), (2, 1), (4, 2)):
            x = nn.Conv(width * self.width, (3, 3), strides=stride, padding=1)(x)
            x = nn.relu(nn.GroupNorm(8)(x))
        return nn.Dense(CLASSES)(jnp.mean(x, axis=(1, 2)))


class Encoder(nn.Module):
    """A transformer of three blocks, for 16 tokens a sample."""

    width: int = 256

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits `[B, 10]` of tokens `[B, 16]`."""
        x = nn.Embed(1000, self.width)(tokens)
        for _ in range(3):
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
            hidden = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(hidden)
        return nn.Dense(CLASSES)(jnp.mean(x, axis=1))


NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "mlp": (MLP, (784,)),
    "convnet": (ConvNet, (32, 32, 3)),
    "encoder": (Encoder, (16,)),
}
QUICK = {"mlp": 32, "convnet": 8, "encoder": 32}


def problem(name: str, batch: int, width: int | None = None) -> Any:
    """Losses by sample, parameters, inputs and labels."""
    make, shape = NETS[name]
    net = make() if width is None else make(width=width)
    keys = jax.random.split(jax.random.key(0), 3)
    if name == "encoder":
        x = jax.random.randint(keys[0], (batch, *shape), 0, 1000)
    else:
        x = jax.random.normal(keys[0], (batch, *shape))
    y = jax.random.randint(keys[1], (batch,), 0, CLASSES)

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = net.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return losses_fn, jax.jit(net.init)(keys[2], x), x, y


def row_sums(batch: int) -> optax.GradientTransformationExtraArgs:
    """Weights that cost nothing, but need the Gramian."""
    rule = mtl.Weighting(
        init=lambda num_tasks: (),
        update=lambda gramian, state, **_: (
            jnp.sum(gramian, axis=1) / jnp.sum(jnp.abs(gramian)),
            state,
        ),
    )
    return mtl.from_weighting(rule, batch)


METHODS = {"row sums": row_sums, "upgrad": mtl.upgrad}


def programs(losses_fn: Any, params: Any, x: Any, y: Any, method: str) -> Any:
    """The compiled steps by name."""
    tx = METHODS[method](len(x))

    def plain(params: Any, x: jax.Array, y: jax.Array) -> Any:
        return jax.grad(lambda p: jnp.mean(losses_fn(p, x, y)))(params)

    def ours(params: Any, x: jax.Array, y: jax.Array) -> Any:
        _, grads = mtl.per_sample_grads(losses_fn)(params, x, y)
        return tx.update(grads, tx.init(params), params)[0]

    def vmapped(params: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            return losses_fn(params, x[None], y[None])[0]

        grads = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(params, x, y)
        return tx.update(grads, tx.init(params), params)[0]

    ways = {"plain": plain, "ours": ours, "vmap(grad)": vmapped}
    args = params, x, y
    return {name: jax.jit(way).lower(*args).compile() for name, way in ways.items()}


def measure(
    name: str, batch: int, method: str, rounds: int, width: int | None = None
) -> dict[str, Any]:
    """Times, temporary memory and FLOPs of each way."""
    losses_fn, *args = problem(name, batch, width)
    compiled = programs(losses_fn, *args, method)
    contenders: dict[str, timing.Contender] = {
        way: lambda run=run: jax.block_until_ready(run(*args))
        for way, run in compiled.items()
    }
    if _with_peer() and width is None:
        from benchmarks import per_sample_torchjd

        data = [np.asarray(part) for part in args[1:]]
        contenders |= per_sample_torchjd.steps(name, *data, method)
    before = timing.load_average()
    samples = timing.interleave(contenders, rounds)
    size = sum(leaf.size for leaf in jax.tree.leaves(args[0]))
    return {
        "net": name,
        "batch": batch,
        "parameters": size,
        "method": method,
        "load_average": [before, timing.load_average()],
        "temporaries_mib": {
            way: run.memory_analysis().temp_size_in_bytes / 2**20
            for way, run in compiled.items()
        },
        "gflop": {
            way: run.cost_analysis()["flops"] / 1e9 for way, run in compiled.items()
        },
        "times": timing.summarise(samples, "plain"),
    }


def _with_peer() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "torchjd"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a way, as Markdown."""
    lines = [
        "| net, batch, method | step | wall ms (quartiles) | / plain | MiB | GFLOP |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        about = f"{row['net']}, {row['batch']}, {row['method']}"
        for way, found in row["times"].items():
            wall, ratio = found["wall_ms"], found["wall_ratio"]["median"]
            memory, flops = (row[key].get(way) for key in ("temporaries_mib", "gflop"))
            numbers = ["-" if x is None else f"{x:.3g}" for x in (memory, flops)]
            lines.append(
                f"| {about} | {way} | {wall['median']:.3g} ({wall['lower']:.3g}-"
                f"{wall['upper']:.3g}) | {ratio:.2f} | {numbers[0]} | {numbers[1]} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, seconds")
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    rows = []
    for name in NETS:
        for batch in [4] if given.quick else given.batches:
            for method in METHODS:
                width = QUICK[name] if given.quick else None
                rounds = 2 if given.quick else given.rounds
                rows.append(measure(name, batch, method, rounds, width))
                print(table(rows[-1:]), flush=True)
    if given.out:
        timing.write_json(
            given.out, {"environment": timing.environment(), "rows": rows}
        )


if __name__ == "__main__":
    main()
