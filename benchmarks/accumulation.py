"""What an update from several micro-batches costs, by each way to gather them.

A trunk of dense layers and a head a task. One update is made of K micro-batches: by K
calls of `accumulate_tasks` around the chain; by K calls of `optax.MultiSteps` behind
the method, which then decides on every micro-batch; by one call on losses that are
means over the micro-batches, in a `lax.scan` whose body is a `jax.checkpoint`; or from
the big batch at once. The reference is K plain steps on the summed loss, with Adam each
time. Memory is that of the compiled step, in copies of the parameters: its arguments
(parameters, Adam's moments, what is gathered) and the temporaries beside them.

    python -m benchmarks.accumulation --quick
    python -m benchmarks.accumulation --out accumulation.json
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

import mtl_optax as mtl
from benchmarks import timing

PLAIN = "plain steps"
METHODS: dict[str, Callable[[int], optax.GradientTransformationExtraArgs]] = {
    "unitary": mtl.unitary,
    "uw": mtl.uw,
    "stch": mtl.stch,
    "mgda": mtl.mgda,
}


class Size(NamedTuple):
    """Of the network and the data."""

    num_tasks: int
    width: int
    batch: int  # samples in a micro-batch
    layers: int = 4
    micro_batches: int = 4


SIZES = (Size(2, 512, 256), Size(6, 512, 256))
QUICK = (Size(2, 8, 4, layers=1, micro_batches=2),)


def parameters(size: Size) -> Any:
    """Matrices of a trunk and of the heads."""
    keys = iter(jax.random.split(jax.random.key(0), size.layers + size.num_tasks))

    def matrix(columns: int) -> jax.Array:
        wide = jax.random.normal(next(keys), (size.width, columns))
        return wide / size.width**0.5

    return {
        "trunk": [matrix(size.width) for _ in range(size.layers)],
        "heads": {f"task{t}": matrix(8) for t in range(size.num_tasks)},
    }


def losses_fn(params: Any, x: jax.Array) -> dict[str, jax.Array]:
    """Squared errors, by task."""
    for weight in params["trunk"]:
        x = jnp.tanh(x @ weight)
    heads = params["heads"].items()
    return {name: jnp.mean((x @ head - t) ** 2) for t, (name, head) in enumerate(heads)}


def mean_losses(params: Any, xs: jax.Array) -> dict[str, jax.Array]:
    """Of micro-batches `[K, batch, ...]`, of which one is in memory at a time."""

    @jax.checkpoint
    def add(total: Any, x: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, losses_fn(params, x)), None

    shapes = jax.eval_shape(losses_fn, params, xs[0])
    start = jax.tree.map(lambda loss: jnp.zeros(loss.shape, loss.dtype), shapes)
    total, _ = lax.scan(add, start, xs)
    return jax.tree.map(lambda loss: loss / len(xs), total)


def big_batch(params: Any, xs: jax.Array) -> dict[str, jax.Array]:
    """Of all samples at once."""
    return losses_fn(params, xs.reshape(-1, xs.shape[-1]))


def ways(method: str, size: Size) -> dict[str, tuple[Any, Any, bool]]:
    """Name -> the chain, its losses, and whether it takes one micro-batch a call."""
    adam, count = optax.adam(1e-3), size.micro_batches
    tx = METHODS[method](size.num_tasks)
    chain = optax.chain(tx, adam)
    behind = optax.MultiSteps(adam, count).gradient_transformation()

    def gathered(missing: bool) -> optax.GradientTransformationExtraArgs:
        return mtl.accumulate_tasks(chain, size.num_tasks, count, missing=missing)

    found: dict[str, tuple[Any, Any, bool]] = {
        PLAIN: (optax.chain(mtl.unitary(size.num_tasks), adam), losses_fn, True),
        "MultiSteps behind": (optax.chain(tx, behind), losses_fn, True),
        "accumulate_tasks": (gathered(True), losses_fn, True),
    }
    if gathered(False).init(parameters(size)).gathered is None:
        found["accumulate_tasks, missing=False"] = (gathered(False), losses_fn, True)
    return found | {
        "scan in the losses": (chain, mean_losses, False),
        "big batch": (chain, big_batch, False),
    }


def compiled(tx: Any, losses: Any, params: Any, x: jax.Array) -> Any:
    """A training step that donates parameters and state."""

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        _, grads = mtl.lazy_task_grads(losses)(params, x)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, x).compile()


def needs(program: Any, params: Any, micro: bool) -> dict[str, float | None]:
    """What a compiled step needs beside time."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    memory, cost = program.memory_analysis(), program.cost_analysis()
    return {
        "arguments": memory.argument_size_in_bytes / size,
        "temporaries": memory.temp_size_in_bytes / size,
        # The body of a loop counts once, so that those of a scan say nothing.
        "gflop": cost["flops"] / 1e9 if micro else None,
    }


def contender(program: Any, tx: Any, params: Any, batches: Sequence[jax.Array]) -> Any:
    """One update: a call for each of the batches."""
    held = [jax.tree.map(jnp.copy, params), jax.jit(tx.init)(params)]

    def run() -> None:
        for x in batches:
            held[:] = program(*held, x)
        jax.block_until_ready(held)

    return run


def measure(method: str, size: Size, rounds: int) -> dict[str, Any]:
    """All ways of one method, ready for JSON."""
    load_before = timing.load_average()
    params = parameters(size)
    shape = (size.micro_batches, size.batch, size.width)
    xs = jax.random.normal(jax.random.key(1), shape)
    runs, results = {}, {}
    for name, (tx, losses, micro) in ways(method, size).items():
        batches = list(xs) if micro else [xs]
        program = compiled(tx, losses, params, batches[0])
        results[name] = needs(program, params, micro)
        runs[name] = contender(program, tx, params, batches)
    times = timing.summarise(timing.interleave(runs, rounds), PLAIN)
    return {
        "method": method,
        **size._asdict(),
        "load_average": [load_before, timing.load_average()],
        "results": {name: results[name] | times[name] for name in runs},
    }


def table(measured: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"**{measured['method']}, T={measured['num_tasks']}, "
        f"{measured['micro_batches']} micro-batches of {measured['batch']}**",
        "",
        "| way | wall ms (quartiles) | / plain | CPU / plain | arguments | temporaries "
        "| GFLOP a call |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in measured["results"].items():
        wall, gflop = row["wall_ms"], row["gflop"]
        cells = [
            f"{wall['median']:.3g} ({wall['lower']:.3g}-{wall['upper']:.3g})",
            f"{row['wall_ratio']['median']:.2f}",
            f"{row['cpu_ratio']['median']:.2f}",
            f"{row['arguments']:.2f}",
            f"{row['temporaries']:.2f}",
            "-" if gflop is None else f"{gflop:.3g}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny: does it run")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--rounds", type=int, help="default 15; quick 2")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    rounds = options.rounds or (2 if options.quick else 15)
    record: dict[str, Any] = {
        "benchmark": "an update from several micro-batches",
        "quick": options.quick,
        "environment": timing.environment(),
        "sizes": [],
    }
    for size in QUICK if options.quick else SIZES:
        for method in options.methods:
            record["sizes"].append(measure(method, size, rounds))
            print(table(record["sizes"][-1]), flush=True)
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
