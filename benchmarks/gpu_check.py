"""Checks and times every public method on a GPU; without one, says so and ends well.

Per method and size: time of one aggregation, gigabytes a second against the bytes that
it must move, 4(2TP + P) where the method needs the Gramian and 4(TP + P) where not, and
that nothing leaves the device. Once per T: that the Gramian is not computed in TF32.
Before that the parts of `gpu_parts.py`: layer-wise Gramians, bf16, one device's mesh,
whole steps and their memory, methods with Adam, rules alone. In ten minutes, or what
`--seconds` leaves: what there is no time for is left out, and said to be.

    python -m benchmarks.gpu_check --out gpu.json --page benchmarks/results/gpu.md

Ends with 1 if a check fails; a time is never one.
"""

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import mtl_optax as mtl
from benchmarks import cases, gpu_parts, timing
from benchmarks.gpu_checks import TOLERANCE, Row

SIZES = ((2, 1_000_000), (10, 1_000_000), (2, 100_000_000), (10, 100_000_000))
QUICK_SIZES = ((2, 20_000), (10, 20_000))
PRECISION_TASKS = (2, 4, 10, 50)
BUDGET_S = 420.0  # after which nothing begins; the longest takes less than 3 minutes
# Launched in a row before waiting, so that the GPU is timed and not the launch.
CALLS = 10

_HOST = re.compile(
    r'custom_call_target="[^"]*(?:callback|MoveToHost)[^"]*"'
    r"|\b(?:infeed|outfeed|send|recv)(?:-done)?\("
    r"|S\(5\)"  # the memory space of the host
)


class Aggregation:
    """One method, compiled; each call gives the same update."""

    def __init__(self, name: str, num_tasks: int, params: Any, stacked: Any):
        tx = cases.build(name, num_tasks)
        state = tx.init(params)
        self.inputs = stacked, state, params, cases.task_losses(num_tasks)

        def update(stacked: Any, state: Any, params: Any, losses: jax.Array) -> Any:
            return tx.update(stacked, state, params, losses=losses)

        self.compiled = jax.jit(update).lower(*self.inputs).compile()

    def __call__(self) -> None:
        for _ in range(CALLS):
            out = self.compiled(*self.inputs)
        jax.block_until_ready(out)


def host_operations(compiled_text: str) -> list[str]:
    """Operations of a compiled program that involve the host."""
    return sorted(set(_HOST.findall(compiled_text)))


def transfer(run: Callable[[], Any]) -> str | None:
    """What JAX says if the call moves data between host and device, else None."""
    try:
        with jax.transfer_guard("disallow"):
            run()
    except Exception as error:
        if "isallowed" not in str(error):
            raise
        return str(error).splitlines()[0]
    return None


def worst_case(num_tasks: int) -> np.ndarray:
    """`[T, 64, 1024]` whose products TF32 gets wrong by 1e-3, whatever its rounding.

    TF32 keeps ten bits, and all entries lie just below the middle of two such numbers.
    """
    row = np.full((64, 1024), 1 + 0.99 * 2.0**-11, np.float32)
    return np.stack([np.float32(2.0 ** (t % 8)) * row for t in range(num_tasks)])


def gramian_error(gramian: Callable[[Any], Any], num_tasks: int) -> float:
    """Largest relative error of an entry, against float64 on the host."""
    rows = worst_case(num_tasks)
    flat = rows.reshape(num_tasks, -1).astype(np.float64)
    exact = flat @ flat.T
    got = np.asarray(jax.jit(gramian)({"w": jnp.asarray(rows)})["w"], np.float64)
    return float(np.max(np.abs(got - exact) / exact))


def precision(num_tasks: int) -> dict[str, Any]:
    """Error of our Gramian, and of a product in JAX's default precision beside it."""

    def ours(tree: Any) -> Any:
        return {"w": mtl.gramian(tree)}

    def default(tree: Any) -> Any:
        rows = tree["w"].reshape(num_tasks, -1)
        return {"w": rows @ rows.T}

    error = gramian_error(ours, num_tasks)
    return {
        "num_tasks": num_tasks,
        "error": error,
        "default_precision_error": gramian_error(default, num_tasks),
        "ok": error < TOLERANCE,
    }


def measure(
    num_tasks: int,
    size: int,
    names: Sequence[str],
    *,
    rounds: int,
    probe: timing.Probe,
) -> dict[str, Any]:
    """Everything about one size, ready for JSON."""
    params = cases.parameters(size)
    stacked = cases.task_gradients(params, num_tasks)
    runs = {name: Aggregation(name, num_tasks, params, stacked) for name in names}
    transfers = {name: transfer(run) for name, run in runs.items()}
    samples = timing.interleave(runs, rounds, probe=probe)
    num_params, families = cases.count(params), cases.methods()
    results = {}
    for name, run in runs.items():
        num_bytes = 4 * (cases.reads(families[name]) * num_tasks + 1) * num_params
        wall = {name: samples.wall[name] / CALLS}
        operations = host_operations(run.compiled.as_text())
        results[name] = {
            "wall_ms": timing.spread(wall[name] * 1e3)._asdict(),
            "cpu_ms": timing.spread(samples.cpu[name] / CALLS * 1e3)._asdict(),
            "bytes": num_bytes,
            "gb_per_s": timing.bandwidth(wall, name, num_bytes)._asdict(),
            "transfer": transfers[name],
            "host_operations": operations,
            "ok": not operations and transfers[name] is None,
        }
    read = timing.bandwidth(samples.wall, timing.READ, probe.num_bytes)
    return {
        "num_tasks": num_tasks,
        "num_params": num_params,
        "rounds": rounds,
        "calls": CALLS,
        "read_gb_per_s": read._asdict(),
        "read_bytes": probe.num_bytes,
        "load_average": timing.load_average(),
        "results": results,
    }


def fits(num_tasks: int, size: int) -> bool:
    """Whether the device holds the stack, and temporaries of three times its size."""
    stats = jax.devices()[0].memory_stats() or {}
    return 16 * num_tasks * size < stats.get("bytes_limit", float("inf"))


def table(measured: dict[str, Any]) -> Table:
    shown = Table(
        title=f"T={measured['num_tasks']}, P={measured['num_params']:,}: one read "
        f"{measured['read_gb_per_s']['median']:.0f} GB/s",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    shown.add_column("method", no_wrap=True)
    for column in ("wall ms", "quartiles", "GB/s", "stays on the device"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, row in measured["results"].items():
        wall = row["wall_ms"]
        shown.add_row(
            name,
            f"{wall['median']:.3g}",
            f"{wall['lower']:.3g}-{wall['upper']:.3g}",
            f"{row['gb_per_s']['median']:.0f}",
            "yes" if row["ok"] else "NO",
        )
    return shown


def check(
    sizes: Sequence[tuple[int, int]],
    names: Sequence[str],
    *,
    rounds: int,
    read_bytes: int,
    console: Console,
    time_is_up: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """All checks and measurements, on whatever the default device is."""
    record: dict[str, Any] = {
        "benchmark": "aggregation on one device",
        "environment": timing.environment(),
        "precision": [precision(num_tasks) for num_tasks in PRECISION_TASKS],
        "sizes": [],
        "left_out": [],
    }
    for row in record["precision"]:
        console.print(
            f"Gramian, T={row['num_tasks']}: relative error {row['error']:.1e}, in "
            f"JAX's default precision {row['default_precision_error']:.1e}: "
            f"{'ok' if row['ok'] else 'NOT FLOAT32'}",
            highlight=False,
        )
    probe = timing.read_probe(read_bytes)
    for num_tasks, size in sizes:
        if time_is_up() or not fits(num_tasks, size):
            why = "the time is up" if time_is_up() else "too little memory"
            console.print(f"T={num_tasks}, P={size:,} left out: {why}.")
            record["left_out"].append({"num_tasks": num_tasks, "size": size})
            continue
        measured = measure(num_tasks, size, names, rounds=rounds, probe=probe)
        record["sizes"].append(measured)
        console.print(table(measured))
    results = [row for size in record["sizes"] for row in size["results"].values()]
    record["ok"] = all(row["ok"] for row in [*record["precision"], *results])
    return record


def run_parts(
    found: dict[str, dict[str, Row]],
    *,
    quick: bool,
    console: Console,
    time_is_up: Callable[[], bool],
) -> bool:
    """Adds the rows of each part while there is time; whether all checks hold."""
    for part in gpu_parts.parts(quick=quick):
        if time_is_up():
            console.print(f"{part.name}: left out, the time is up.")
            continue
        found[part.name] = part.run()
        for name, row in found[part.name].items():
            said = row.text if row.ok else f"WRONG: {row.text}"
            console.print(f"{part.name}: {name}: {said}", highlight=False)
    return all(row.ok for rows in found.values() for row in rows.values())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--page", type=Path, help="page to write, in Markdown")
    parser.add_argument("--methods", nargs="+", choices=sorted(cases.methods()))
    parser.add_argument(
        "--seconds", type=float, default=BUDGET_S, help="after which nothing begins"
    )
    options = parser.parse_args(argv)
    console = Console()
    backend = jax.default_backend()
    if backend != "gpu":
        console.print(f"No GPU here, only {backend}: nothing checked, nothing timed.")
        if options.page:
            nothing = "No GPU was there: nothing is measured yet."
            options.page.write_text(gpu_parts.page({}, nothing), encoding="utf-8")
        return 0
    end = time.perf_counter() + options.seconds
    left: dict[str, Any] = {"time_is_up": lambda: time.perf_counter() > end}
    found: dict[str, dict[str, Row]] = {}
    ok = run_parts(found, quick=options.quick, console=console, **left)
    record = check(
        QUICK_SIZES if options.quick else SIZES,
        options.methods or list(cases.methods()),
        rounds=3 if options.quick else 15,
        read_bytes=16_000_000 if options.quick else 2_000_000_000,
        console=console,
        **left,
    )
    record["ok"] &= ok
    record["parts"] = {
        part: {name: row._asdict() for name, row in rows.items()}
        for part, rows in found.items()
    }
    if options.page:
        header = gpu_parts.shown(record["environment"])
        text = gpu_parts.page(found, header, quick=options.quick)
        options.page.write_text(text, encoding="utf-8")
    if options.out:
        timing.write_json(options.out, record)
        console.print(f"Written: {options.out}", highlight=False)
    return 0 if record["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
