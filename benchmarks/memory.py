"""What the same steps as in `step.py` need that is no time of theirs.

Of XLA's compiled step: temporaries beside arguments and results, FLOPs (the body of a
loop counts once, however often it runs), and the time to trace and to compile. Of a
fresh process that makes three steps: the most memory it held, which is all that can be
asked of a peer, and must be compared with the plain step of the same framework.

    python -m benchmarks.memory --quick
    python -m benchmarks.memory --processes --torchjd --libmtl PATH --out memory.json
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import peers, step_models, step_ways, tables, timing

MIB = 2**20


def compiled(way: step_ways.Way, problem: step_models.Problem) -> dict[str, float]:
    """Of one step; nothing runs."""
    jax.clear_caches()  # no way is spared what another has traced
    start = time.perf_counter()
    lowered = way.lower(problem)
    traced = time.perf_counter()
    step = lowered.compile()
    end = time.perf_counter()
    return {
        "temporaries_mib": step.memory_analysis().temp_size_in_bytes / MIB,
        "gflop": (step.cost_analysis() or {}).get("flops", float("nan")) / 1e9,
        "trace_s": traced - start,
        "compile_s": end - traced,
    }


def held() -> float:
    """The most memory that this process held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # `ru_maxrss` starts from what the parent held when it started this process.
        line = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def steps(
    name: str, problem: step_models.Problem, others: peers.Peers, calls: int = 3
) -> None:
    """A few steps of one way, of whatever framework."""
    if name in step_ways.WAYS:
        step: Any = step_ways.Step(step_ways.make(name, problem), problem)
    else:
        from benchmarks.peers_models import Step

        step = Step(problem, _theirs(others)[name])
    for _ in range(calls):
        step()


def _theirs(others: peers.Peers) -> dict[str, Any]:
    return others.step_ways(same=False) | others.step_ways(same=True)


def in_a_process(name: str, problem: step_models.Problem, others: peers.Peers) -> float:
    """`held` of a fresh process after these steps."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", name]
    command += ["--quick"] * problem.quick
    if problem.trunk:
        command += ["--models", problem.model, "--tasks", str(problem.num_tasks)]
    else:
        command += ["--zoo", problem.model]
    # A peer's process loads that peer alone, and one of ours none.
    if name.startswith("torch"):
        command += ["--torchjd"]
    if name.startswith("libmtl"):
        command += ["--libmtl", str(others.libmtl)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure(
    problem: step_models.Problem,
    names: Sequence[str],
    others: peers.Peers,
    *,
    processes: bool,
) -> dict[str, Any]:
    """Everything about one model and number of tasks, ready for JSON."""
    load_before = timing.load_average()
    results: dict[str, dict[str, float]] = {
        name: compiled(step_ways.make(name, problem), problem) for name in names
    }
    if processes:
        for name in (*names, *_theirs(others)):
            held_by = in_a_process(name, problem, others)
            results.setdefault(name, {})["process_mib"] = held_by
    shared = problem.params["trunk"] if problem.trunk else problem.params
    num_bytes = sum(x.nbytes for x in jax.tree.leaves(shared))
    return {
        "model": problem.model,
        "num_tasks": problem.num_tasks,
        "jacobian_mib": problem.num_tasks * num_bytes / MIB,
        "load_average": [load_before, timing.load_average()],
        "results": results,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    step_ways.add_choices(parser)
    parser.add_argument(
        "--processes", action="store_true", help="also what fresh processes hold"
    )
    peers.add_choices(parser)
    parser.add_argument(
        "--one", help="make a few steps of this way, print what it held"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    others = peers.found(options)
    if options.one:
        ((problem, _),) = step_ways.chosen(options)
        steps(options.one, problem, others)
        print(held())
        return 0
    record: dict[str, Any] = {
        "benchmark": "memory",
        "quick": options.quick,
        "environment": timing.environment() | others.environment(),
        "sizes": [],
    }
    for problem, names in step_ways.chosen(options):
        asked = others if problem.trunk else peers.NONE
        measured = measure(problem, names, asked, processes=options.processes)
        record["sizes"].append(measured)
        print(tables.memory(measured), flush=True)
    if options.out:
        timing.write_json(options.out, record)
        print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
