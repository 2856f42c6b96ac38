"""Times the whole training step: forward pass, task gradients, UPGrad, Adam.

Every step is compiled once, as a whole, and gives away parameters and state. All ways
of one model run in one process in interleaved rounds, TorchJD's among them; that they
compute the same weights, and that tasks are in conflict, is checked before. `T passes`
is a step by hand, one backward pass after the other: what the library did before it
took the Gramian layer by layer.

    python -m benchmarks.step --quick
    python -m benchmarks.step --torchjd --out step.json
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import step_models, step_ways, timing
from benchmarks.aggregate import torchjd_found
from benchmarks.step_ways import PASSES, PLAIN

TOLERANCE = 1e-2  # of weights, over the largest: torch's Gramian is good to 1e-3


def agreed(
    contenders: Mapping[str, Any], reference: str, *, in_conflict: bool
) -> dict[str, float]:
    """Each way's deviation in weights after the first step, which it takes."""
    for step in contenders.values():
        step()
    expected = np.asarray(contenders[reference].weights)
    if in_conflict and np.ptp(expected) < 0.02 * expected.mean():
        raise ValueError(f"weights {expected}: tasks are not in conflict")
    found = {
        name: float(np.abs(np.asarray(step.weights) - expected).max() / expected.max())
        for name, step in contenders.items()
    }
    if not all(deviation < TOLERANCE for deviation in found.values()):
        raise ValueError(f"weights differ, over the largest, by {found}")
    return found


def measure(
    problem: step_models.Problem, names: Sequence[str], *, rounds: int, torchjd: bool
) -> dict[str, Any]:
    """Everything about one model and number of tasks, ready for JSON."""
    steps: dict[str, Any] = {
        name: step_ways.Step(step_ways.make(name, problem), problem) for name in names
    }
    same = {name: steps[name] for name in names if name in step_ways.EXACT}
    peers: dict[str, Any] = {}
    if torchjd:
        from benchmarks import peers_step

        steps[peers_step.PLAIN] = peers_step.Step(problem, peers_step.PLAIN)
        peers = {name: peers_step.Step(problem, name) for name in peers_step.EXACT}
    deviations = agreed(same | peers, PASSES, in_conflict=problem.trunk)
    steps |= peers

    load_before = timing.load_average()
    samples = timing.interleave(steps, rounds, warmup=1)
    results = timing.summarise(samples, PLAIN if PLAIN in steps else PASSES)
    over = {"passes": PASSES}
    if peers:
        over["peer"] = min(peers, key=lambda name: np.median(samples.wall[name]))
    for label, reference in over.items():
        for clock in ("wall", "cpu"):
            found = timing.ratios(getattr(samples, clock), reference)
            for name in steps:
                results[name][f"{clock}_over_{label}"] = found[name]._asdict()
    return {
        "model": problem.model,
        "num_tasks": problem.num_tasks,
        "rounds": rounds,
        "best_peer": over.get("peer"),
        "deviations": deviations,
        "load_average": [load_before, timing.load_average()],
        "results": results,
    }


COLUMNS = {
    "wall_ratio": "/ plain",
    "wall_over_passes": f"/ {PASSES}",
    "wall_over_peer": "/ best peer",
    "cpu_ms": "CPU ms",
    "cpu_ratio": "/ plain",
    "cpu_over_passes": f"/ {PASSES}",
    "cpu_over_peer": "/ best peer",
}


def show(measured: dict[str, Any]) -> None:
    """As a table in Markdown; medians, and the quartiles of the first."""
    load, best = measured["load_average"], measured["best_peer"]
    print(
        f"\n**{measured['model']}, T={measured['num_tasks']}** "
        f"({measured['rounds']} rounds; load average {load[0]} before, {load[1]} after"
        + (f"; best peer: {best})" if best else ")")
        + f"\n\n| step | wall ms (quartiles) | {' | '.join(COLUMNS.values())} |"
    )
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, row in measured["results"].items():
        wall = row["wall_ms"]
        cells = [f"{wall['median']:.3g} ({wall['lower']:.3g}-{wall['upper']:.3g})"]
        cells += [f"{row[key]['median']:.3g}" if key in row else "" for key in COLUMNS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    step_ways.add_choices(parser)
    parser.add_argument("--rounds", type=int, help="default 9, with --quick 3")
    parser.add_argument(
        "--torchjd", action="store_true", help="time TorchJD too, if it is installed"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    torchjd = options.torchjd and torchjd_found(Console())
    record: dict[str, Any] = {
        "benchmark": "whole training step with UPGrad and Adam, one donated step",
        "quick": options.quick,
        "reference": PLAIN,
        "environment": timing.environment(),
        "sizes": [],
    }
    if torchjd:
        from benchmarks import peers_step

        record["environment"]["torchjd"] = peers_step.environment()
    print(record["environment"])
    rounds = options.rounds or (3 if options.quick else 9)
    for problem, names in step_ways.chosen(options):
        peers = torchjd and problem.trunk
        measured = measure(problem, names, rounds=rounds, torchjd=peers)
        record["sizes"].append(measured)
        show(measured)
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
