"""Interleaved timing, which every benchmark here measures with.

A round runs every contender once, in an order drawn anew, and reads one large buffer.
So whatever else the machine does falls on all alike, and ratios are taken within a
round before their median is. Process CPU time counts all threads: it tells work from
waiting when others use the machine, but hides what parallel threads gain in wall time.
"""

import json
import os
import platform
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import mtl_optax

PACKAGES = ("jax", "jaxlib", "optax", "numpy")
# Settings that change how many threads compute and how they wait.
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "XLA_FLAGS")
READ = "one read"

Contender = Callable[[], Any]


class Probe(NamedTuple):
    """A read of `num_bytes`, timed as a contender of its own, `READ`."""

    run: Contender
    num_bytes: int


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Samples:
    """Seconds a call; entry r of every array is from round r."""

    wall: Mapping[str, NDArray[np.float64]]
    cpu: Mapping[str, NDArray[np.float64]]


def interleave(
    contenders: Mapping[str, Contender],
    rounds: int,
    warmup: int = 2,
    *,
    probe: Probe | None = None,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
) -> Samples:
    """Times every contender once a round; each must block until it is done."""
    if READ in contenders:
        raise ValueError(f"interleave: {READ!r} is the name of the probe.")
    runs = dict(contenders) | ({READ: probe.run} if probe else {})
    for run in runs.values():
        for _ in range(warmup):
            run()
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            cpu_start, start = cpu(), wall()
            runs[name]()
            end, cpu_end = wall(), cpu()
            walls[name].append(end - start)
            cpus[name].append(cpu_end - cpu_start)
    return Samples(
        {name: np.asarray(values) for name, values in walls.items()},
        {name: np.asarray(values) for name, values in cpus.items()},
    )


def spread(values: Any) -> Spread:
    lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(lower), float(upper))


def ratios(times: Mapping[str, NDArray[Any]], reference: str) -> dict[str, Spread]:
    """Spread of each contender's time over the reference's in the same round."""
    base = times[reference]

    def over_base(values: NDArray[Any]) -> Spread:
        # A clock too coarse for the call gives 0/0: no ratio, not a warning.
        unknown = np.full(len(base), np.nan)
        return spread(np.divide(values, base, out=unknown, where=base > 0))

    return {name: over_base(values) for name, values in times.items()}


def bandwidth(times: Mapping[str, NDArray[Any]], name: str, num_bytes: int) -> Spread:
    """Gigabytes a second, if one call moves this many bytes."""
    return spread(num_bytes / times[name] / 1e9)


def over_floor(
    times: Mapping[str, NDArray[Any]], name: str, num_bytes: int, probe: Probe
) -> Spread:
    """Time over that of moving the bytes as fast as the probe read in that round."""
    return spread(times[name] / (num_bytes * times[READ] / probe.num_bytes))


def summarise(samples: Samples, reference: str) -> dict[str, dict[str, Any]]:
    """Times in ms, and ratios to the reference paired within rounds."""
    over_wall = ratios(samples.wall, reference)
    over_cpu = ratios(samples.cpu, reference)
    return {
        name: {
            "wall_ms": spread(samples.wall[name] * 1e3)._asdict(),
            "cpu_ms": spread(samples.cpu[name] * 1e3)._asdict(),
            "wall_ratio": over_wall[name]._asdict(),
            "cpu_ratio": over_cpu[name]._asdict(),
        }
        for name in samples.wall
    }


def read_probe(num_bytes: int) -> Probe:
    """Reads a buffer of float32 once, on the default device."""
    size = num_bytes // 4
    if jax.default_backend() == "cpu":
        # NumPy's product reads a third faster than any form of XLA's on one core.
        array = np.ones(size, np.float32)
        return Probe(lambda: np.dot(array, array), array.nbytes)
    buffer = jnp.ones(size, jnp.float32)
    read = jax.jit(jnp.sum).lower(buffer).compile()
    return Probe(lambda: read(buffer).block_until_ready(), buffer.nbytes)


def environment() -> dict[str, Any]:
    """What a reader needs to judge the numbers; no names of machines, no paths."""
    device = jax.devices()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version(), "mtl_optax": mtl_optax.__version__},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "device_count": jax.device_count(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": _threads(),
        "load_average": load_average(),
        # Flags may hold paths, to folders for dumps for example.
        "settings": {
            name: " ".join(w for w in os.environ[name].split() if "/" not in w)
            for name in SETTINGS
            if name in os.environ
        },
    }


def load_average() -> list[float] | None:
    """Of the last 1, 5 and 15 minutes."""
    if not hasattr(os, "getloadavg"):
        return None
    return [round(load, 2) for load in os.getloadavg()]


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes the record, rounded to five digits; NaN, which JSON lacks, as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(record), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _threads() -> int:
    """Of this process, those of the runtime included where the system tells."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
