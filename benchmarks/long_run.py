"""A long training that is killed again and again, beside one that is not.

    python -m benchmarks.long_run --quick            # a minute: does it run
    python -m benchmarks.long_run --out result.json  # 50,000 steps, 20 kills

Both runs are processes of `long_run_worker.py`. Half of the kills come at any moment,
half within a few milliseconds of a save. What must hold: the last checkpoints are equal
bit by bit, memory and number of arrays stay as they were, nothing is compiled after the
first save of a process, and each task was skipped in the steps in which it was NaN.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import long_run_worker as worker
from benchmarks import timing
from benchmarks.long_run_worker import Plan

ROOT = Path(__file__).resolve().parents[1]
LONG = Plan(steps=50_000, save_every=500, nan_every=1000, width=64, blocks=2)
QUICK = Plan(steps=200, save_every=20, nan_every=10, width=16, blocks=1)
FLAT = 1.05  # memory at the end over memory at the beginning, at most
# In the quick form nearly all the time would go into compiling.
HURRIED = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)


def deaths(plan: Plan, kills: int, late: float) -> list[tuple[int, float]]:
    """Step and seconds after it of each kill, in order: at any step, or at a save."""
    chance = random.Random(0)
    saves = range(plan.save_every - 1, plan.steps, plan.save_every)
    steps = [chance.randrange(plan.steps) for _ in range(kills - kills // 2)]
    drawn = [(step, chance.uniform(0, late)) for step in steps]
    drawn += [(chance.choice(saves), chance.uniform(0, 0.05)) for _ in steps]
    return sorted(drawn[:kills])


def train(folder: Path, plan: Plan, kills: Sequence[tuple[int, float]]) -> None:
    """The whole run, in one process more than it is killed."""
    folder.mkdir()
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax"),
    }
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if plan.width == QUICK.width:
        environment["XLA_FLAGS"] = HURRIED
    for death in [*kills, None]:
        now = (
            plan
            if death is None
            else plan._replace(die_at=death[0], die_after=death[1])
        )
        command = [sys.executable, "-m", worker.__name__, str(folder), *map(str, now)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode != (0 if death is None else -signal.SIGKILL):
            raise RuntimeError(f"a run ended with {done.returncode}: {done.stderr}")
        said = "done" if death is None else f"killed at step {death[0]}"
        print(f"{folder.name}: {said}", flush=True)


def logs(folder: Path) -> list[list[dict[str, Any]]]:
    """What each process wrote; a kill may have cut the last line."""
    files = sorted(folder.glob("log*.jsonl"))
    texts = [file.read_text().rpartition("\n")[0].splitlines() for file in files]
    return [[json.loads(line) for line in text] for text in texts]


def seen(folder: Path, plan: Plan) -> dict[str, Any]:
    """The numbers of a run."""
    processes = logs(folder)
    lines = [line for own in processes for line in own]
    longest = max(processes, key=len)
    rss = np.array_split([line["rss_mib"] for line in longest], 4)
    first, last = longest[0], longest[-1]
    steps = max(1, last["step"] - first["step"])
    with worker.manager(folder) as checkpoints:
        _, state = worker.restored(checkpoints, plan)
    done = [own[-1]["step"] if own else None for own in processes]
    begun = [own[0]["first"] if own else None for own in processes]
    return {
        "kills": len(processes) - 1,
        "died without a save": done.count(None),
        "steps gone on from": sorted({x for x in begun[1:] if x is not None}),
        "half-written checkpoints found": sum(
            own[0]["halves"] for own in processes if own
        ),
        "MiB, quarter by quarter": [round(float(np.median(x))) for x in rss],
        "live arrays": sorted({line["arrays"] for line in lines}),
        "compiled after the first save": sum(
            own[-1]["compiled"] - own[0]["compiled"] for own in processes if own
        ),
        "programs of the step": max(line["programs"] for line in lines),
        "skipped": np.asarray(state.nonfinite_counts).tolist(),
        "ms a step, wall": 1e3 * (last["wall"] - first["wall"]) / steps,
        "ms a step, CPU": 1e3 * (last["cpu"] - first["cpu"]) / steps,
        "loss, first quarter": _loss(lines, plan, 0, 1),
        "loss, last quarter": _loss(lines, plan, 3, 4),
    }


def _loss(lines: list[dict[str, Any]], plan: Plan, low: int, high: int) -> float:
    """Mean over the saves between two quarters of the run, where it is a number."""
    inside = [x for x in lines if low * plan.steps < 4 * x["step"] <= high * plan.steps]
    return float(np.nanmean([line["losses"] for line in inside]))


def equal(folders: Sequence[Path], plan: Plan) -> bool:
    """Whether parameters and state in the last checkpoints have the same bits."""
    trees = []
    for folder in folders:
        with worker.manager(folder) as checkpoints:
            assert checkpoints.latest_step() == plan.steps
            trees.append(worker.restored(checkpoints, plan))
    pairs = jax.tree.map(lambda a, b: _bits(a) == _bits(b), *trees)
    return jax.tree.all(pairs)


def _bits(array: jax.Array) -> bytes:
    return np.asarray(array).tobytes()


def measure(folder: Path, plan: Plan, kills: int, late: float = 0.5) -> dict[str, Any]:
    """Both runs, and what is asked of them."""
    folders = folder / "uninterrupted", folder / "killed"
    train(folders[0], plan, [])
    train(folders[1], plan, deaths(plan, kills, late))
    runs = {x.name: seen(x, plan) for x in folders}
    whole, killed = runs.values()
    wanted, mib = worker.skips(plan), whole["MiB, quarter by quarter"]
    return {
        "environment": timing.environment(),
        "plan": plan._asdict(),
        "parameters": sum(
            x.size for x in jax.tree.leaves(worker.fresh(plan.width, plan.blocks)[0])
        ),
        "skips expected": wanted,
        "runs": runs,
        "holds": {
            "parameters and state equal bit by bit": equal(folders, plan),
            "killed as often as asked": killed["kills"] == kills,
            f"memory grows by less than {FLAT - 1:.0%}": mib[-1] <= FLAT * mib[0],
            "live arrays stay as many": len(whole["live arrays"]) == 1,
            "nothing is compiled again": all(
                run["compiled after the first save"] == 0
                and run["programs of the step"] == 1
                for run in runs.values()
            ),
            "skipped as often as NaN": all(
                run["skipped"] == wanted for run in runs.values()
            ),
        },
    }


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    whole, killed = record["runs"].values()
    holds = [
        f"| {x} | {'yes' if y else '**no**'} |" for x, y in record["holds"].items()
    ]
    rows = [
        f"| {name} | {_cell(whole[name])} | {_cell(killed[name])} |" for name in whole
    ]
    return "\n".join(
        [
            *("| must hold | holds |", "|---|---|", *holds, ""),
            *("| | uninterrupted | killed |", "|---|---|---|", *rows),
            f"| to be skipped | {_cell(record['skips expected'])} | the same |",
        ]
    )


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs both; 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 steps, 2 kills")
    parser.add_argument("--out", type=Path, help="the numbers, as JSON")
    options = parser.parse_args(argv)
    sizes: Any = (QUICK, 2, 0.02) if options.quick else (LONG, 20)
    with tempfile.TemporaryDirectory() as folder:
        record = measure(Path(folder), *sizes)
    if options.out is not None:
        timing.write_json(options.out, record)
    print(table(record))
    return 0 if all(record["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
