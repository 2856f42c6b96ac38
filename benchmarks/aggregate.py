"""Times aggregation + Adam in one compiled step, for every public method.

The step starts from stacked gradients, as a training step has them after its backward
passes, and gives away its parameters and optimizer state. Adam alone on one gradient
is what the same step costs without multi-task learning.

    python -m benchmarks.aggregate --quick
    python -m benchmarks.aggregate --out benchmarks/results/aggregate.json
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import cases, timing

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
    torchjd: bool = False,
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
    peers: dict[str, list[str]] = {}
    if torchjd:
        from benchmarks import peers_torchjd

        steps = peers_torchjd.steps(names, stacked, LEARNING_RATE)
        peers = {name: list(found) for name, found in steps.items()}
        contenders |= {k: v for found in steps.values() for k, v in found.items()}

    load_before = timing.load_average()
    samples = timing.interleave(contenders, rounds, warmup, probe=probe)
    results = timing.summarise(samples, ADAM)

    num_params, families = cases.count(one), cases.methods()
    owners = {peer: name for name, found in peers.items() for peer in found}
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
    for name, found in peers.items():
        results[name]["over_peer"] = {
            peer: {
                "wall": timing.ratios(samples.wall, peer)[name]._asdict(),
                "cpu": timing.ratios(samples.cpu, peer)[name]._asdict(),
            }
            for peer in found
        }
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


def table(measured: dict[str, Any]) -> Table:
    load = measured["load_average"][0]
    shown = Table(
        title=f"T={measured['num_tasks']}, P={measured['num_params']:,}: "
        f"{measured['rounds']} rounds, one read "
        f"{measured['read_gb_per_s']['median']:.1f} GB/s, "
        f"load average {load[0] if load else 'unknown'}",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    # Times, and times over those of Adam and of the floor
    shown.add_column("step", no_wrap=True)
    for column in ("wall ms", "quartiles", "/adam", "/floor"):
        shown.add_column(column, justify="right", no_wrap=True)
    for column in ("CPU ms", "/adam", "/floor"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, row in measured["results"].items():
        cells = [name]
        for clock in ("wall", "cpu"):
            time, floor = row[f"{clock}_ms"], row.get(f"{clock}_over_floor")
            cells.append(f"{time['median']:.3g}")
            if clock == "wall":
                cells.append(f"{time['lower']:.3g}-{time['upper']:.3g}")
            cells.append(f"{row[f'{clock}_ratio']['median']:.3g}")
            cells.append(f"{floor['median']:.3g}" if floor else "")
        shown.add_row(*cells)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, help="default 9, with --quick 5")
    parser.add_argument("--methods", nargs="+", choices=sorted(cases.methods()))
    parser.add_argument(
        "--torchjd", action="store_true", help="time TorchJD too, if it is installed"
    )
    options = parser.parse_args(argv)
    # A log has room for all columns.
    console = Console(width=None if sys.stdout.isatty() else 100)
    torchjd = options.torchjd and torchjd_found(console)
    names = options.methods or list(cases.methods())
    on_cpu = jax.default_backend() == "cpu"
    read = 16e6 if options.quick else 256e6 if on_cpu else 2e9
    probe = timing.read_probe(int(read))
    record: dict[str, Any] = {
        "benchmark": "aggregation + Adam, one donated step",
        "quick": options.quick,
        "reference": ADAM,
        "environment": timing.environment(),
        "sizes": [],
    }
    if torchjd:
        from benchmarks import peers_torchjd

        record["environment"]["torchjd"] = peers_torchjd.environment()
    for num_tasks, size in QUICK_SIZES if options.quick else SIZES:
        measured = measure(
            num_tasks,
            size,
            names,
            rounds=options.rounds or (5 if options.quick else 9),
            warmup=2,
            probe=probe,
            torchjd=torchjd,
        )
        record["sizes"].append(measured)
        console.print(table(measured))
    if options.out:
        timing.write_json(options.out, record)
        console.print(f"Written: {options.out}", highlight=False)
    return 0


def torchjd_found(console: Console) -> bool:
    # Before torch is loaded: its threads would otherwise spin at barriers, and on busy
    # cores that takes a hundred times the time of the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch  # noqa: F401
        import torchjd  # noqa: F401
    except ImportError as error:
        console.print(f"TorchJD left out: {error}.", highlight=False)
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
