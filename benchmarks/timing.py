"""What every benchmark here measures with, around the rounds of `analysis.interleave`.

Rounds read one large buffer too, to tell what the memory of the machine gives.
"""

import json
import os
import platform
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import mtl_optax
from mtl_optax.analysis.interleave import (
    READ,
    Contender,
    Probe,
    Samples,
    Spread,
    interleave,
    ratios,
    spread,
)

__all__ = [
    "READ",
    "Contender",
    "Probe",
    "Samples",
    "Spread",
    "bandwidth",
    "environment",
    "interleave",
    "load_average",
    "over",
    "over_floor",
    "ratios",
    "read_probe",
    "spread",
    "summarise",
    "write_json",
]

PACKAGES = ("jax", "jaxlib", "optax", "numpy")
# Settings that change how many threads compute and how they wait.
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "XLA_FLAGS")


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


def over(
    samples: Samples, name: str, references: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Ratios of one contender to each of some others."""
    return {
        reference: {
            "wall": ratios(samples.wall, reference)[name]._asdict(),
            "cpu": ratios(samples.cpu, reference)[name]._asdict(),
        }
        for reference in references
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
