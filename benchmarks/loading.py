"""What of a training run on full-size NYUv2 takes the time: files, or the step.

    python -m benchmarks.loading --short             # tiny files: does it run
    python -m benchmarks.loading --data DIR --out loading.json

Milliseconds a batch of 8 for reading, for reading and augmentation, for the step alone
on a batch that is on the device, for the loop of `Run` as it is, and for evaluation,
with 0, 1 and 2 worker processes; rounds, in each of which every contender runs once, in
an order drawn anew. Files of full size are generated into `--data` where they are not
there yet (1 GB). What must hold: batches come faster than the step takes them.
"""

import argparse
import dataclasses
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing
from benchmarks.dense_files import write_nyuv2
from mtl_optax.data import loading
from mtl_optax.data.dataset import Dataset
from mtl_optax.data.dense import open_nyuv2
from mtl_optax.data.scan import Scan, scan
from mtl_optax.training.run import Run, Watch
from mtl_optax.training.settings import Settings

BATCH = 8
# What is trained: with the cheapest method, and with one on a Gramian.
NETWORKS = {
    "width 8, unitary": {"width": 8, "method": "unitary"},
    "width 16, cagrad": {"width": 16, "method": "cagrad"},
}
CHEAPEST = next(iter(NETWORKS))


class Plan(NamedTuple):
    """Sizes; batches of training are read, or trained on, after those skipped."""

    val: int  # examples
    height: int
    width: int
    skipped: int  # batches, until what was read ahead is used up
    batches: int  # timed, at a stretch
    steps: int  # of the step alone
    rounds: int
    workers: tuple[int, ...]
    networks: tuple[str, ...]  # the first with all workers, and evaluated

    @property
    def train(self) -> int:
        """Examples: an epoch in which nothing is read twice."""
        return BATCH * (self.skipped + self.batches)


LONG = Plan(
    val=128,
    height=288,
    width=384,
    skipped=12,
    batches=12,
    steps=6,
    rounds=5,
    workers=(0, 1, 2),
    networks=tuple(NETWORKS),
)
SHORT = Plan(
    val=16,
    height=24,
    width=32,
    skipped=1,
    batches=2,
    steps=1,
    rounds=1,
    workers=(0, 1),
    networks=(CHEAPEST,),
)


class Stop(Exception):
    """Ends a run once it has been timed."""


class Timed(NamedTuple):
    """A contender in one round, a batch; None where it cannot be told."""

    wall: float
    cpu: float | None = None  # of all threads of this process
    first: float | None = None  # until the first batch was there
    from_disk: float | None = None  # bytes


class Files:
    """The data, and what is run on them."""

    def __init__(self, data: Path, plan: Plan, folder: Path):
        self.plan, self.folder, self.data = plan, folder, data
        self.dataset: Dataset = open_nyuv2(data)
        self.scan: Scan = scan(self.dataset)

    def run(self, network: str, workers: int = 0, stop: int | None = None) -> Run:
        """A new run; `times` of it has what was there after each of its steps."""
        times: dict[int, tuple[float, float]] = {}

        def step(done: int, of: int) -> None:
            times[done] = time.perf_counter(), time.process_time()
            if done == stop:
                raise Stop

        own = NETWORKS[network]
        settings = Settings(
            **own,
            encoder="small",
            epochs=1,
            batch_size=BATCH,
            workers=workers,
            log_every=self.plan.skipped,
        )
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        run = Run(self.dataset, self.scan, settings, folder, watch=Watch(step=step))
        run.times = times
        return run

    def read(self, workers: int, augment: bool, cold: bool = False) -> Timed:
        """Batches as they are read for training, and nothing else."""
        if cold:
            self.evict()
        dataset = self.dataset
        if not augment:
            dataset = dataclasses.replace(dataset, augment=None)
        reading = loading.Reading(BATCH, 0, workers)
        start = time.perf_counter()
        batches = loading.training(dataset, self.scan.good("train"), reading, epochs=1)
        next(batches)
        first = time.perf_counter() - start
        for _ in range(self.plan.skipped - 1):
            next(batches)
        disk = from_disk()
        timed = clocked(partial(next, batches), self.plan.batches)
        read = (from_disk() - disk) / self.plan.batches
        close(batches)
        return timed._replace(
            cpu=None if workers else timed.cpu,
            first=first,
            from_disk=None if workers else read,
        )

    def loop(self, network: str, workers: int) -> Timed:
        """`Run.to_the_end`, between two steps at which it waits for the device."""
        first, last = self.plan.skipped, self.plan.skipped + self.plan.batches
        run = self.run(network, workers, stop=last)
        try:
            run.to_the_end()
        except Stop:
            pass
        (wall, cpu), (end, cpu_end) = run.times[first], run.times[last]
        number = last - first
        return Timed(
            (end - wall) / number, None if workers else (cpu_end - cpu) / number
        )

    def evict(self) -> None:
        """Asks the system to forget the files; the host may keep them."""
        for file in self.data.glob("*/*/*.npy"):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def scanned(self, cold: bool) -> Timed:
        """The pass before training; a call is an example."""
        if cold:
            self.evict()
        disk, number = from_disk(), self.plan.train + self.plan.val
        timed = clocked(partial(scan, self.dataset), 1)
        return Timed(
            *(timed.wall / number, timed.cpu / number),
            from_disk=(from_disk() - disk) / number,
        )


class Steps:
    """The compiled steps of a run, on a batch that is on the device."""

    def __init__(self, files: Files, network: str):
        self.plan, self.run = files.plan, files.run(network)
        reading = loading.Reading(BATCH)
        one = loading.training(
            files.dataset, files.scan.good("train"), reading, epochs=1
        )
        self.batch = jax.device_put(self.run._on_devices(next(one)))
        close(one)
        self.train()
        self.evaluate(0)

    def train(self) -> Timed:
        """Some steps one after the other; waits for the last."""

        def steps() -> None:
            for _ in range(self.plan.steps):
                self.run.state, report = self.run.train_step(
                    self.run.state, self.batch, None
                )
            jax.block_until_ready((self.run.state, report))

        timed = clocked(steps, 1)
        return Timed(*(x / self.plan.steps for x in timed[:2]))

    def evaluate_alone(self) -> Timed:
        """As many steps of evaluation."""

        def steps() -> None:
            for _ in range(self.plan.steps):
                state = self.run.state
                found = self.run.eval_step(state.params, state.rest, self.batch)
            jax.block_until_ready(found)

        timed = clocked(steps, 1)
        return Timed(*(x / self.plan.steps for x in timed[:2]))

    def evaluate(self, workers: int) -> Timed:
        """`Run.evaluate` over the split, with the start of its workers."""
        settings = dataclasses.replace(self.run.settings, workers=workers)
        self.run.settings = settings
        timed = clocked(partial(self.run.evaluate, "val"), 1)
        number = -(-self.plan.val // BATCH)
        cpu = None if workers else timed.cpu / number
        return Timed(timed.wall / number, cpu)


def clocked(call: Callable[[], Any], number: int) -> Timed:
    """Seconds a call, of some calls at a stretch."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(number):
        call()
    end, cpu_end = time.perf_counter(), time.process_time()
    return Timed((end - wall) / number, (cpu_end - cpu) / number)


def from_disk() -> int:
    """Bytes that this process has had fetched from the disk; 0 where none can tell."""
    file = Path("/proc/self/io")
    if not file.exists():
        return 0
    rows = dict(line.split(": ") for line in file.read_text().splitlines())
    return int(rows["read_bytes"])


def close(batches: Iterator[Any]) -> None:
    """Ends what reads ahead."""
    batches.close()  # type: ignore[attr-defined]


def contenders(files: Files) -> dict[str, Callable[[], Timed]]:
    """Name -> what is timed once a round."""
    steps = {network: Steps(files, network) for network in files.plan.networks}
    found: dict[str, Callable[[], Timed]] = {}
    for workers in files.plan.workers:
        name = f"workers {workers}"
        found[f"reading | {name}"] = partial(files.read, workers, False)
        found[f"reading, augmentation | {name}"] = partial(files.read, workers, True)
        found[f"loop: {CHEAPEST} | {name}"] = partial(files.loop, CHEAPEST, workers)
        evaluate = partial(steps[CHEAPEST].evaluate, workers)
        found[f"evaluation: {CHEAPEST} | {name}"] = evaluate
    for network in files.plan.networks[1:]:
        found[f"loop: {network} | workers 0"] = partial(files.loop, network, 0)
    found["reading, not in the cache | workers 0"] = partial(
        files.read, 0, False, cold=True
    )
    for network, own in steps.items():
        found[f"step: {network} | alone"] = own.train
    found[f"step of evaluation: {CHEAPEST} | alone"] = steps[CHEAPEST].evaluate_alone
    found["scan, an example | cached"] = partial(files.scanned, cold=False)
    found["scan, an example | not in the cache"] = partial(files.scanned, cold=True)
    return found


def rounds(
    calls: dict[str, Callable[[], Timed]], number: int
) -> Iterator[dict[str, list[Timed]]]:
    """Every contender once a round, in an order drawn anew; yields what there is."""
    chance, order = random.Random(0), list(calls)
    found: dict[str, list[Timed]] = {name: [] for name in calls}
    for done in range(1, number + 1):
        chance.shuffle(order)
        for name in order:
            found[name].append(calls[name]())
            print(f"{done}/{number} {name}: {1e3 * found[name][-1].wall:.4g} ms")
            sys.stdout.flush()
        yield found


def summary(found: dict[str, list[Timed]]) -> dict[str, Any]:
    """Milliseconds, and times over those of the step in the same round."""
    loader = np.array([x.wall for x in found["reading, augmentation | workers 0"]])
    results: dict[str, Any] = {}
    for name, times in found.items():
        row: dict[str, Any] = {
            "wall_ms": timing.spread([1e3 * x.wall for x in times])._asdict()
        }
        for key, values, scale in (
            ("cpu_ms", [x.cpu for x in times], 1e3),
            ("first_s", [x.first for x in times], 1),
            ("disk_mib", [x.from_disk for x in times], 2**-20),
        ):
            if None not in values:
                row[key] = timing.spread(scale * np.array(values))._asdict()
        what, _, _ = name.partition(" | ")
        network = what.partition(": ")[2]
        if what.startswith("loop"):
            alone = [x.wall for x in found[f"step: {network} | alone"]]
            wall = np.array([x.wall for x in times])
            row["over_step"] = timing.spread(wall / np.array(alone))._asdict()
        if what.startswith("step:"):
            wall = np.array([x.wall for x in times])
            row["loader_over_it"] = timing.spread(loader / wall)._asdict()
        results[name] = row
    return results


def measure(plan: Plan, data: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """The record after each round."""
    environment, load = timing.environment(), timing.load_average()
    # Runs of one network are compiled once.
    jax.config.update("jax_compilation_cache_dir", str(folder / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    files = Files(data, plan, folder)
    example = (data / "train").glob(f"*/{plan.train - 1}.npy")
    example_mib = sum(x.stat().st_size for x in example) / 2**20
    for found in rounds(contenders(files), plan.rounds):
        results = summary(found)
        size = {
            **plan._asdict(),
            "rounds": len(found[f"step: {CHEAPEST} | alone"]),
            "train": plan.train,
            "batch": BATCH,
            "load_average": [load, timing.load_average()],
            "example_mib": example_mib,
            "results": results,
            "holds": {
                f"batches come faster than the step takes them: {network}": results[
                    f"step: {network} | alone"
                ]["loader_over_it"]["median"]
                < 1
                for network in plan.networks
            },
        }
        yield {
            "benchmark": "loading",
            "quick": plan is SHORT,
            "environment": environment,
            "sizes": [size],
        }


def generate(plan: Plan, data: Path) -> None:
    """The files, unless the last of them is there."""
    if not (data / "val" / "normal" / f"{plan.val - 1}.npy").exists():
        size = {"height": plan.height, "width": plan.width}
        write_nyuv2(data, train=plan.train, val=plan.val, **size)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; the short form says nothing of times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="tiny files, one round")
    parser.add_argument("--data", type=Path, help="files, made if not there")
    parser.add_argument("--rounds", type=int, help=f"({LONG.rounds})")
    parser.add_argument("--out", type=Path, help="the numbers, as JSON")
    options = parser.parse_args(argv)
    if not options.short and options.data is None:
        parser.error("needs --data, or --short")
    plan = SHORT if options.short else LONG
    if options.rounds is not None:
        plan = plan._replace(rounds=options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder, "data")
        generate(plan, data)
        for record in measure(plan, data, Path(folder)):
            if options.out is not None:
                timing.write_json(options.out, record)
    (size,) = record["sizes"]
    for name, holds in size["holds"].items():
        print(f"{'yes' if holds else 'no'}: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
