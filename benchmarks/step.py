"""Times the whole training step: forward pass, task gradients, UPGrad, Adam.

Every step is compiled once, as a whole, and gives away parameters and state. All ways
of one model run in one process in interleaved rounds, those of peers among them; that
they compute the same weights, and that tasks are in conflict, is checked before, but
for steps with other methods. `T passes` is a step by hand, one backward pass after the
other: what the library did before it took the Gramian layer by layer.

    python -m benchmarks.step --quick
    python -m benchmarks.step --torchjd --libmtl PATH --out step.json
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers, step_models, step_ways, tables, timing
from benchmarks.step_ways import ONE, PASSES, PLAIN

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
    problem: step_models.Problem,
    names: Sequence[str],
    others: peers.Peers,
    *,
    rounds: int,
) -> dict[str, Any]:
    """Everything about one model and number of tasks, ready for JSON."""
    steps: dict[str, Any] = {
        name: step_ways.Step(step_ways.make(name, problem), problem) for name in names
    }
    same = {name: steps[name] for name in names if name in step_ways.EXACT}
    exact = _theirs(others.step_ways(same=True), problem)
    deviations = agreed(same | exact, PASSES, in_conflict=problem.trunk)
    for name in step_ways.IN_TURN.keys() & names:
        for _ in range(problem.num_tasks):
            steps[name]()
    steps |= _theirs(others.step_ways(same=False), problem) | exact

    load_before = timing.load_average()
    samples = timing.interleave(steps, rounds, warmup=1)
    results = timing.summarise(samples, PLAIN if PLAIN in steps else PASSES)
    over = {"passes": PASSES} | ({"one": ONE} if ONE in steps else {})
    if exact:
        over["peer"] = min(exact, key=lambda name: np.median(samples.wall[name]))
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


def _theirs(ways: Mapping[str, Any], problem: step_models.Problem) -> dict[str, Any]:
    if not ways:
        return {}
    from benchmarks.peers_models import Step

    return {name: Step(problem, way) for name, way in ways.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    step_ways.add_choices(parser)
    parser.add_argument("--rounds", type=int, help="default 9, with --quick 3")
    peers.add_choices(parser)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    others = peers.found(options)
    record: dict[str, Any] = {
        "benchmark": "step",
        "quick": options.quick,
        "reference": PLAIN,
        "environment": timing.environment() | others.environment(),
        "sizes": [],
    }
    rounds = options.rounds or (3 if options.quick else 9)
    for problem, names in step_ways.chosen(options):
        asked = others if problem.trunk else peers.NONE
        measured = measure(problem, names, asked, rounds=rounds)
        record["sizes"].append(measured)
        print(tables.step(measured), flush=True)
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
