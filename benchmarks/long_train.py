"""`mtl-optax train nyuv2` for an hour, killed again and again, beside one that is not.

    python -m benchmarks.long_train --short          # a minute: does it run
    python -m benchmarks.long_train --data DIR --runs DIR --out train_long.json

Files of full size, generated into `--data` where they are not there yet (5 GB), a small
network, both runs side by side. SIGKILL comes at random within epochs, in evaluations,
while the end of an epoch is saved, and after the last step; a new process goes on with
`--resume`, one of them with a worker process. What must hold: all numbers that the two
runs leave are equal bit by bit, and memory does not grow.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.dense_files import write_nyuv2
from benchmarks.long_run import HURRIED
from mtl_optax.study.engine.checkpoints import Checkpoints
from mtl_optax.training import logs

ROOT = Path(__file__).resolve().parents[1]
FILES = "steps.csv", "epochs.csv", "results.json"
BATCH = 8
WITH_WORKER = 2  # the process, counted from 0, that reads by a worker of its own
FLAT = 1.1  # memory in the last quarter over that in the second, at most


class Plan(NamedTuple):
    """Sizes of both runs."""

    train: int  # examples
    val: int
    height: int  # of a picture
    width: int
    epochs: int
    channels: int  # --width
    save_seconds: float  # of the run that is killed; the other has the command's
    late: float  # seconds after the row of a log in which a kill may come
    steps: int  # kills within an epoch
    evaluations: int  # kills in an evaluation
    saves: int  # kills while the end of an epoch is saved

    @property
    def steps_an_epoch(self) -> int:
        """Whole batches."""
        return self.train // BATCH


LONG = Plan(795, 654, 288, 384, 10, 8, 60.0, 40.0, 3, 2, 2)
SHORT = Plan(24, 16, 24, 32, 3, 4, 0.0, 0.05, 1, 1, 0)


class Kill(NamedTuple):
    """Where a process is killed: once it has come to a step, and some time more."""

    place: str
    step: int
    late: float  # seconds


class Life(NamedTuple):
    """A process from its start to its end."""

    kill: Kill | None
    logged: int  # last step in steps.csv when it ended
    saved: int | None  # step of the last whole checkpoint then
    halves: int  # half-written checkpoints then
    left: bool  # whether processes that it had started lived on
    rss_mib: list[float]  # every few seconds
    peak_mib: float
    seconds: float


def kills(plan: Plan) -> list[Kill]:
    """In order; each in an epoch of its own, but for the last one, at the end."""
    chance = random.Random(0)
    number = plan.steps + plan.evaluations + plan.saves
    epochs = chance.sample(range(1, plan.epochs + 1), number)
    own, end = plan.steps_an_epoch, plan.epochs * plan.steps_an_epoch
    places = ["epoch"] * plan.steps + ["evaluation"] * plan.evaluations
    drawn = []
    for place, epoch in zip(places + ["save"] * plan.saves, epochs, strict=True):
        if place == "epoch":
            first = chance.randrange((epoch - 1) * own + 1, epoch * own - own // 4)
            drawn.append(Kill(place, first, chance.uniform(0, plan.late)))
        else:
            late = plan.late / 2 if place == "evaluation" else 0.3
            drawn.append(Kill(place, epoch * own, chance.uniform(0, late)))
    drawn.append(Kill("after the last step", end, chance.uniform(0, plan.late)))
    return sorted(drawn, key=lambda kill: (kill.step, kill.place != "evaluation"))


def reached(kill: Kill, folder: Path) -> bool:
    """Whether the run is where it is to be killed, but for the seconds."""
    if kill.place == "after the last step":
        return saved(folder)[0] == kill.step
    name = "epochs.csv" if kill.place == "save" else "steps.csv"
    return last(folder / name) >= kill.step


def last(file: Path) -> int:
    """The step of the last whole row; 0 where there is none."""
    rows = logs.read(file)
    return int(rows[-1]["step"]) if rows else 0


def saved(folder: Path) -> tuple[int | None, int]:
    """The step of the last whole checkpoint, and how many are half written."""
    names = [x.name for x in (folder / "checkpoints" / "last").glob("*")]
    done = [int(name) for name in names if name.isdecimal()]
    halves = list((folder / "checkpoints").glob("*/*.orbax-checkpoint-tmp*"))
    return max(done, default=None), len(halves)


def live(
    command: Sequence[str], folder: Path, log: Path, kill: Kill | None, hurried: bool
) -> Life:
    """One process, to its end or to its kill."""
    environment = {**os.environ, **({"XLA_FLAGS": HURRIED} if hurried else {})}
    start, rss, due = time.perf_counter(), [], None
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        usage: Any = None
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            now = time.perf_counter()
            if due is None and kill is not None and reached(kill, folder):
                due = now + kill.late
            if due is not None and now >= due:
                process.send_signal(signal.SIGKILL)
                _, status, usage = os.wait4(process.pid, 0)
                break
            if now - start > 5 * len(rss):
                rss.append(_rss_mib(process.pid))
            time.sleep(0.005 if hurried else 0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (0 if kill is None else -signal.SIGKILL):
        raise RuntimeError(f"ended with {process.returncode}:\n{log.read_text()}")
    seconds = time.perf_counter() - start
    left = _lives_on(process.pid)
    done, halves = saved(folder)
    peak = usage.ru_maxrss / 2**10
    logged = last(folder / "steps.csv")
    return Life(kill, logged, done, halves, left, rss, peak, seconds)


def _lives_on(group: int) -> bool:
    """Whether a process of the group still lives after ten seconds; ends it."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return True


def _rss_mib(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")]
    return int(found[0]) / 2**10 if found else 0.0


def train(plan: Plan, data: Path, folder: Path, deaths: Sequence[Kill]) -> list[Life]:
    """The whole run, in one process more than it is killed."""
    lives = []
    program = ["mtl_optax.study.command.cli"]
    if deaths:
        program = ["benchmarks.long_train_worker", str(plan.save_seconds)]
    options = f"""
        --method cagrad --encoder small --width {plan.channels} --batch {BATCH}
        --epochs {plan.epochs} --devices 1""".split()
    where = ["--data", str(data), "--out", str(folder)]
    for number, death in enumerate([*deaths, None]):
        command = [sys.executable, "-m", *program, "train", "nyuv2", *where, *options]
        command += ["--resume"] if number else []
        command += ["--workers", "1"] if number == WITH_WORKER else []
        log = folder.parent / f"{folder.name}.{number}.log"
        lives.append(live(command, folder, log, death, plan is SHORT))
        said = "done" if death is None else f"killed, {death.place}"
        done = lives[-1]
        print(
            f"{time.strftime('%H:%M:%S')} {folder.name}: {said}, step {done.logged}, "
            f"saved {done.saved}, {done.seconds:.0f} s",
            flush=True,
        )
    return lives


def arrays(folder: Path, name: str) -> tuple[int, list[np.ndarray]]:
    """Step and arrays of a checkpoint."""
    settings = json.loads((folder / "checkpoints" / "settings.json").read_text())
    store = Checkpoints(folder / "checkpoints", settings, resume=True)
    found = store.load(name)
    assert found is not None
    return found.done, found.leaves


def equal(a: tuple[int, list[np.ndarray]], b: tuple[int, list[np.ndarray]]) -> bool:
    """Whether step, types, shapes and bits are the same."""
    if a[0] != b[0] or len(a[1]) != len(b[1]):
        return False
    return all(
        (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        for x, y in zip(a[1], b[1], strict=True)
    )


def measure(plan: Plan, data: Path, runs: Path) -> dict[str, Any]:
    """Both runs, side by side, and what is asked of them."""
    environment, load = timing.environment(), [timing.load_average()]
    folders = runs / "uninterrupted", runs / "killed"
    deaths = kills(plan)
    print(f"kills: {[tuple(x) for x in deaths]}", flush=True)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(train, plan, data, folder, own)
            for folder, own in zip(folders, ([], deaths), strict=True)
        ]
        whole, killed = (x.result() for x in both)
    load.append(timing.load_average())
    same = {
        f"{name} equal byte by byte": len({(x / name).read_bytes() for x in folders})
        == 1
        for name in FILES
    }
    for name in ("last", "best"):
        one, other = (arrays(folder, name) for folder in folders)
        same[f"{name} checkpoint equal bit by bit"] = equal(one, other)
    steps = plan.epochs * plan.steps_an_epoch
    mib = [float(np.median(x)) for x in np.array_split(whole[0].rss_mib, 4)]
    results = json.loads((folders[0] / "results.json").read_text())
    rows = logs.read(folders[0] / "epochs.csv")
    losses = [name for name in rows[0] if name.endswith("/loss")]
    holds = {
        **same,
        "killed as often as planned": len(killed) == len(deaths) + 1,
        "steps and epochs are all there": last(folders[0] / "steps.csv") == steps
        and len(rows) == plan.epochs,
        "no process is left behind": not any(life.left for life in [*whole, *killed]),
    }
    if plan is not SHORT:
        grows = mib[3] <= FLAT * mib[1]
        holds[f"memory grows by less than {FLAT - 1:.0%} in the last half"] = grows
    return {
        "benchmark": "train_long",
        "quick": plan is SHORT,
        "environment": environment,
        "plan": plan._asdict(),
        "sizes": [
            {
                "load_average": load,
                "holds": holds,
                "numbers compared": {
                    "rows of steps.csv": len(logs.read(folders[0] / "steps.csv")),
                    "columns of steps.csv": len(logs.read(folders[0] / "steps.csv")[0]),
                    "rows of epochs.csv": len(rows),
                    "columns of epochs.csv": len(rows[0]),
                    "numbers in a checkpoint": sum(
                        x.size for x in arrays(folders[0], "last")[1]
                    ),
                },
                "parameters": results["parameters"],
                "best epoch": results["best epoch"],
                "steps": steps,
                "losses": {
                    name: [row[name] for row in rows] for name in sorted(losses)
                },
                "MiB, quarter by quarter": [round(x) for x in mib],
                "uninterrupted": _summary(whole),
                "killed": _summary(killed),
            }
        ],
    }


def _summary(lives: Sequence[Life]) -> dict[str, Any]:
    """Without every sample of memory."""
    own = [life._asdict() | {"rss_mib": None} for life in lives]
    for row in own:
        row["kill"] = row["kill"] and row["kill"]._asdict()
        del row["rss_mib"]
    return {"seconds": sum(life.seconds for life in lives), "processes": own}


def generate(plan: Plan, data: Path) -> None:
    """The files, unless the last of them is there."""
    if not (data / "val" / "normal" / f"{plan.val - 1}.npy").exists():
        size = {"height": plan.height, "width": plan.width}
        write_nyuv2(data, train=plan.train, val=plan.val, **size)


def run(plan: Plan, data: Path, runs: Path, after: Callable[[Any], None]) -> int:
    """All of it; 1 if something does not hold."""
    generate(plan, data)
    runs.mkdir(parents=True)
    record = measure(plan, data, runs)
    after(record)
    held: dict[str, bool] = record["sizes"][0]["holds"]
    for name, holds in held.items():
        print(f"{'yes' if holds else 'NO'}: {name}")
    return 0 if all(held.values()) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs both; 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="tiny files, two kills")
    parser.add_argument("--data", type=Path, help="5 GB of files, made if not there")
    parser.add_argument("--runs", type=Path, help="a new folder for both runs")
    parser.add_argument("--out", type=Path, help="the numbers, as JSON")
    options = parser.parse_args(argv)

    def after(record: Any) -> None:
        if options.out is not None:
            timing.write_json(options.out, record)

    if options.short:
        with tempfile.TemporaryDirectory() as folder:
            return run(SHORT, Path(folder, "data"), Path(folder, "runs"), after)
    if options.data is None or options.runs is None:
        parser.error("needs --data and --runs, or --short")
    return run(LONG, options.data, options.runs, after)


if __name__ == "__main__":
    sys.exit(main())
