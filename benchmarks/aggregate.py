"""Times aggregation + Adam in one compiled step, for every public method.

The step starts from stacked gradients, as a training step has them after its backward
passes, and gives away its parameters and optimizer state. Adam alone on one gradient
is what the same step costs without multi-task learning.

    python -m benchmarks.aggregate --quick
    python -m benchmarks.aggregate --torchjd --libmtl PATH --out aggregate.json
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

from benchmarks import cases, peers, tables, timing

SIZES = ((2, 1_000_000), (10, 1_000_000), (40, 1_000_000), (2, 20_000_000))
QUICK_SIZES = ((2, 20_000), (10, 20_000))
ADAM = "adam"
LEARNING_RATE = 1e-3


class Step:
    """Parameters and optimizer state, which each call replaces in place."""

    def __init__(
        self, tx: optax.GradientTransformationExtraArgs, size: int, *inputs: Any
    ):
        self.params = cases.parameters(size)
        self.state = tx.init(self.params)
        self.inputs = inputs

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, state: Any, grads: Any, losses: jax.Array) -> Any:
            updates, state = tx.update(grads, state, params, losses=losses)
            return optax.apply_updates(params, updates), state

        self.step = step.lower(self.params, self.state, *inputs).compile()

    def __call__(self) -> None:
        self.params, self.state = self.step(self.params, self.state, *self.inputs)
        jax.block_until_ready((self.params, self.state))


def measure(
    num_tasks: int,
    size: int,
    names: Sequence[str],
    *,
    rounds: int,
    warmup: int,
    probe: timing.Probe,
    others: peers.Peers = peers.NONE,
) -> dict[str, Any]:
    """Everything about one size, ready for JSON."""
    stacked = cases.task_gradients(cases.parameters(size), num_tasks)
    losses = cases.task_losses(num_tasks)
    adam = optax.with_extra_args_support(optax.adam(LEARNING_RATE))
    one = jax.tree.map(lambda leaf: leaf[0], stacked)
    contenders: dict[str, timing.Contender] = {ADAM: Step(adam, size, one, losses)}
    for name in names:
        tx = optax.chain(cases.build(name, num_tasks), adam)
        contenders[name] = Step(tx, size, stacked, losses)
    theirs = _theirs(others, names, stacked)
    contenders |= {k: v for found in theirs.values() for k, v in found.items()}

    load_before = timing.load_average()
    samples = timing.interleave(contenders, rounds, warmup, probe=probe)
    results = timing.summarise(samples, ADAM)

    num_params, families = cases.count(one), cases.methods()
    owners = {peer: name for name, found in theirs.items() for peer in found}
    for name in contenders:
        # Adam reads parameters and two moments and writes all three.
        method = owners.get(name, name)
        reads = num_tasks * cases.reads(families[method]) if method != ADAM else 1
        num_bytes = 4 * (reads + 6) * num_params
        results[name] |= {
            "floor_bytes": num_bytes,
            "wall_over_floor": timing.over_floor(
                samples.wall, name, num_bytes, probe
            )._asdict(),
            "cpu_over_floor": timing.over_floor(
                samples.cpu, name, num_bytes, probe
            )._asdict(),
        }
    for name, found in theirs.items():
        results[name]["over_peer"] = timing.over(samples, name, found)
    read = timing.bandwidth(samples.wall, timing.READ, probe.num_bytes)
    return {
        "num_tasks": num_tasks,
        "num_params": num_params,
        "num_leaves": len(jax.tree.leaves(one)),
        "least_cosine": cases.least_cosine(stacked),
        "rounds": rounds,
        "warmup": warmup,
        "read_gb_per_s": read._asdict(),
        "read_bytes": probe.num_bytes,
        "load_average": [load_before, timing.load_average()],
        "results": results,
    }


def _theirs(
    others: peers.Peers, names: Sequence[str], stacked: Any
) -> dict[str, dict[str, timing.Contender]]:
    """For each of our methods, the ways of peers to do the same."""
    found: dict[str, dict[str, timing.Contender]] = {}
    if others.torchjd:
        from benchmarks import peers_torchjd

        found |= peers_torchjd.steps(names, stacked, LEARNING_RATE)
    if others.libmtl:
        from benchmarks import peers_libmtl

        given = others.libmtl, names, stacked, LEARNING_RATE
        for name, step in peers_libmtl.aggregations(*given).items():
            found[name] = found.get(name, {}) | {f"libmtl {name}": step}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, help="default 9, with --quick 5")
    parser.add_argument("--methods", nargs="+", choices=sorted(cases.methods()))
    parser.add_argument(
        "--sizes", nargs="+", type=_size, help="as 2x1e6, tasks times parameters"
    )
    peers.add_choices(parser)
    options = parser.parse_args(argv)
    others = peers.found(options)
    names = options.methods or list(cases.methods())
    on_cpu = jax.default_backend() == "cpu"
    read = 16e6 if options.quick else 256e6 if on_cpu else 2e9
    probe = timing.read_probe(int(read))
    record: dict[str, Any] = {
        "benchmark": "aggregate",
        "quick": options.quick,
        "reference": ADAM,
        "environment": timing.environment() | others.environment(),
        "sizes": [],
    }
    for num_tasks, size in options.sizes or (QUICK_SIZES if options.quick else SIZES):
        measured = measure(
            num_tasks,
            size,
            names,
            rounds=options.rounds or (5 if options.quick else 9),
            warmup=2,
            probe=probe,
            others=others,
        )
        record["sizes"].append(measured)
        print(tables.aggregate(measured), flush=True)
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


def _size(text: str) -> tuple[int, int]:
    num_tasks, _, num_params = text.partition("x")
    return int(num_tasks), int(float(num_params))


if __name__ == "__main__":
    raise SystemExit(main())
