"""Results as tables in Markdown, of what the benchmarks write as JSON.

Each function takes one size of a record, or the record, and knows no JAX: medians, with
quartiles where one time is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
FILES = 4  # of an example of NYUv2


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def median(spread: Row | None, digits: int = 3) -> str:
    """Nothing for what was not measured or is unknown."""
    if not spread or spread["median"] is None:
        return ""
    return f"{spread['median']:.{digits}g}"


def quartiles(spread: Row | None) -> str:
    if not spread:
        return ""
    return f"{median(spread)} ({spread['lower']:.3g}-{spread['upper']:.3g})"


def load(size: Row) -> str:
    before, after = size["load_average"]
    return f"{size['rounds']} rounds; load average {_one(before)} before, {_one(after)}"


def _one(load: Any) -> str:
    return f"{load[0]:.2g}" if isinstance(load, list) else f"{load}"


def step(size: Row) -> str:
    """One model and number of tasks of `step.py`."""
    columns = {
        "wall_ratio": "/ plain",
        "wall_over_one": "/ one task",
        "wall_over_passes": "/ T passes",
        "wall_over_peer": "/ best peer",
        "cpu_ms": "CPU ms",
        "cpu_ratio": "/ plain",
        "cpu_over_passes": "/ T passes",
        "cpu_over_peer": "/ best peer",
    }
    best = size["best_peer"]
    columns = {key: title for key, title in columns.items() if _any(size, key)}
    rows = [
        [name, quartiles(row["wall_ms"]), *(median(row.get(key)) for key in columns)]
        for name, row in size["results"].items()
    ]
    title = f"**{size['model']}, T={size['num_tasks']}** ({load(size)} after"
    title += f"; best peer: {best})" if best else ")"
    head = ["step", "wall ms (quartiles)", *columns.values()]
    return f"\n{title}\n\n{table(head, rows)}"


def memory(size: Row) -> str:
    """One model and number of tasks of `memory.py`."""
    columns = {
        "temporaries_mib": "temporaries MiB",
        "gflop": "GFLOP",
        "trace_s": "trace s",
        "compile_s": "compile s",
        "process_mib": "process MiB",
    }
    used = {k: v for k, v in columns.items() if _any(size, k)}
    rows = [
        [name, *(f"{row[key]:.3g}" if row.get(key) else "" for key in used)]
        for name, row in size["results"].items()
    ]
    title = (
        f"**{size['model']}, T={size['num_tasks']}** (one Jacobian of the shared "
        f"parameters {size['jacobian_mib']:.1f} MiB)"
    )
    return f"\n{title}\n\n{table(['step', *used.values()], rows)}"


def flat_cost(size: Row) -> str:
    """One number of tasks of `flat_cost.py`."""
    rows = [
        [
            *(name, quartiles(row["wall_ms"]), median(row["cpu_ms"])),
            *(median(row["cpu_ratio"]), median(row["cpu_over_flat"])),
            *(f"{row['gflop']:.3g}", f"{row['temporaries_mib']:.3g}"),
        ]
        for name, row in size["results"].items()
    ]
    title = (
        f"**T={size['num_tasks']}, width {size['width']}, batch {size['batch']}** "
        f"({load(size)} after; the trunk has {size['trunk_mib']:.1f} MiB)"
    )
    head = ["step", "wall ms (quartiles)", "CPU ms", "/ mean", "/ flat_mtl"]
    return f"\n{title}\n\n{table([*head, 'GFLOP', 'temporaries MiB'], rows)}"


def rl_forms(size: Row) -> str:
    """The critics' step of `rl_update.py` by the form of the gradients."""
    rows = [
        [
            *(name, quartiles(row["wall_ms"]), median(row["wall_ratio"])),
            *(median(row["cpu_ms"]), median(row["cpu_ratio"])),
            *(f"{row['gflop']:.3g}", f"{row['temporaries_mib']:.3g}"),
        ]
        for name, row in size["results"].items()
    ]
    head = ["critics' step", "wall ms (quartiles)", "/ sum", "CPU ms", "/ sum"]
    made = table([*head, "GFLOP", "temporaries MiB"], rows)
    return f"\n**CAGrad, by the form of its gradients** ({load(size)} after)\n\n{made}"


def rl_update(size: Row, over_sum: float, over_peer: float) -> str:
    """One size of `rl_update.py`, and what was aimed at."""
    columns = {
        "wall_ratio": "/ sum",
        "wall_over_peer": "/ peer's PCGrad",
        "cpu_ms": "CPU ms",
        "cpu_ratio": "/ sum",
        "cpu_over_peer": "/ peer's PCGrad",
    }
    columns = {key: title for key, title in columns.items() if _any(size, key)}
    rows = [
        [
            *(name, quartiles(row["wall_ms"])),
            *(median(row.get(key)) for key in columns),
            *(f"{row['gflop']:.3g}", f"{row['temporaries_mib']:.3g}"),
            f"{row['compile_s']:.2g}",
        ]
        for name, row in size["results"].items()
    ]
    hidden = " x ".join(map(str, size["hidden"]))
    title = (
        f"**{size['num_tasks']} tasks, {size['rows']} transitions of each, hidden "
        f"layers {hidden}** ({load(size)} after)"
    )
    found = {
        "cagrad": ("wall_ratio", over_sum),
        "pcgrad": ("wall_over_peer", over_peer),
    }
    aims = [
        f"{name} {columns[key]}: {median(size['results'][name][key])}, aimed at "
        f"{goal} or less."
        for name, (key, goal) in found.items()
        if key in columns and name in size["results"]
    ]
    head = ["update", "wall ms (quartiles)", *columns.values()]
    made = table([*head, "GFLOP", "temporaries MiB", "compile s"], rows)
    return f"\n{title}\n\n{made}\n\n{' '.join(aims)}"


def train_long(size: Row) -> str:
    """What must hold, what was compared, and the processes of `long_train.py`."""
    holds = [(name, "yes" if x else "**no**") for name, x in size["holds"].items()]
    rows = []
    for number, life in enumerate(size["killed"]["processes"]):
        kill = life["kill"]
        end = f"killed, {kill['place']}" if kill else "went to the end"
        # Rows of steps.csv stop some steps before a kill.
        cells = [end, life["logged"], life["saved"] or "the start", life["halves"]]
        cells += [f"{life['peak_mib']:.0f}", f"{life['seconds']:.0f}"]
        rows.append([str(x) for x in (number, *cells)])
    whole, killed = size["uninterrupted"], size["killed"]
    (alone,) = whole["processes"]
    mib = ", ".join(map(str, size["MiB, quarter by quarter"]))
    losses = [
        [name.removesuffix("/loss"), *(f"{x:.4g}" for x in values)]
        for name, values in size["losses"].items()
    ]
    epochs = range(1, 1 + len(losses[0][1:]))
    head = ["process", "end", "last row of steps.csv", "goes on from"]
    head += ["half-written", "peak MiB", "s"]
    return "\n\n".join(
        [
            table(["must hold", "holds"], holds),
            "Compared: "
            + ", ".join(f"{x:,} {name}" for name, x in size["numbers compared"].items())
            + ".",
            f"{size['steps']:,} steps, {size['parameters']:,} parameters. "
            f"Uninterrupted: {whole['seconds'] / 60:.0f} minutes, at most "
            f"{alone['peak_mib']:.0f} MiB; in the four quarters of the time {mib} MiB "
            f"(medians). Killed: {killed['seconds'] / 60:.0f} minutes in all.",
            table(head, rows),
            "Losses on validation data after each epoch, the same in both runs:",
            table(["task", *map(str, epochs)], losses),
        ]
    )


def loading(size: Row) -> str:
    """Milliseconds a batch by what is done and who reads, of `loading.py`."""
    results = size["results"]
    wheres = dict.fromkeys(name.partition(" | ")[2] for name in results)
    workers = [where for where in wheres if where.startswith("workers")]
    whats = dict.fromkeys(
        name.partition(" | ")[0] for name in results if "workers" in name
    )
    rows = []
    for what in whats:
        cells = [results.get(f"{what} | {where}", {}) for where in workers]
        first = cells[0]
        rows.append(
            [
                what,
                *(quartiles(row.get("wall_ms")) for row in cells),
                median(first.get("cpu_ms")),
                *(median(row.get("over_step"), 2) for row in cells),
            ]
        )
    alone = [
        [
            name.partition(" | ")[0],
            quartiles(row["wall_ms"]),
            median(row["cpu_ms"]),
            median(row.get("loader_over_it"), 2),
        ]
        for name, row in results.items()
        if name.endswith("| alone")
    ]
    scan = [
        [
            name.partition(" | ")[2],
            quartiles(row["wall_ms"]),
            f"{1e3 * FILES / row['wall_ms']['median']:.0f}",
            f"{row['disk_mib']['median']:.2f}",
        ]
        for name, row in results.items()
        if name.startswith("scan")
    ]
    starts = ", ".join(
        f"{median(results[f'reading, augmentation | {where}']['first_s'], 2)} s with "
        f"{where.partition(' ')[2]}"
        for where in workers
    )
    cold = results["reading, not in the cache | workers 0"]["disk_mib"]["median"]
    holds = [[name, "yes" if x else "**no**"] for name, x in size["holds"].items()]
    over = [f"{where.partition(' ')[2]}: loop / step" for where in workers]
    return "\n\n".join(
        [
            table(["must hold", "holds"], holds),
            f"**Batches of {size['batch']}, {size['height']} x {size['width']}, "
            f"{size['example_mib']:.2f} MiB an example in {FILES} files** "
            f"({load(size)} after)",
            table(["alone", "wall ms", "CPU ms", "read and augmented / it"], alone),
            table(
                ["ms a batch, wall", *workers, "CPU ms, workers 0", *over],
                rows,
            ),
            f"The first batch was there after {starts}. Of what was not in the cache "
            f"{cold:.2f} MiB a batch came from the disk.",
            table(["scan", "ms an example", "files a second", "MiB from disk"], scan),
        ]
    )


def _any(size: Row, key: str) -> bool:
    return any(row.get(key) for row in size["results"].values())


def aggregate(size: Row) -> str:
    """One size of `aggregate.py`: our methods, the peers' ways below them."""
    results = size["results"]
    rows = []
    for name, row in results.items():
        best, over = _best(row)
        cells = [name, quartiles(row["wall_ms"]), median(row["wall_ratio"])]
        cells += [median(row.get("wall_over_floor")), median(row["cpu_ms"])]
        cells += [median(row["cpu_ratio"]), median(over.get("wall"))]
        rows.append([*cells, median(over.get("cpu")), best])
    read = size["read_gb_per_s"]["median"]
    title = (
        f"**T={size['num_tasks']}, P={size['num_params']:,}** ({load(size)} after; "
        f"one read {read:.1f} GB/s)"
    )
    head = ["step", "wall ms (quartiles)", "/ Adam", "/ floor", "CPU ms", "/ Adam"]
    head += ["wall / best peer", "CPU / best peer", "best peer"]
    return f"\n{title}\n\n{table(head, rows)}"


def _best(row: Row) -> tuple[str, Row]:
    """The peer that is the fastest against this row, by wall, and the ratios to it."""
    over = row.get("over_peer") or {}
    if not over:
        return "", {}
    name = max(over, key=lambda peer: over[peer]["wall"]["median"] or 0)
    return name, over[name]


def optimality(record: Row) -> str:
    """Roundings and times of `optimality.py`."""
    names = list(record["sizes"][0]["results"])
    rows = []
    for size in record["sizes"]:
        cells = [f"{size['num_tasks']} x {size['width']}", size["dtype"]]
        for row in size["results"].values():
            cells.append(
                f"{row['roundings']:.1f}, {row['over_cholesky']['median']:.0f}"
            )
        rows.append(cells)
    head = ["tasks x dimensions", "dtype", *(f"{n}: roundings, time" for n in names)]
    return f"{record['count']} matrices of each size.\n\n{table(head, rows)}"


def scaling(record: Row) -> str:
    """Wall time over that of the plain step, and temporaries, along each axis."""
    return "\n".join(
        _axis(axis, [s for s in record["sizes"] if s["axis"] == axis])
        for axis in dict.fromkeys(size["axis"] for size in record["sizes"])
    )


KINDS = {
    "wall_ms": "Wall ms",
    "wall_ratio": "Wall over the plain step",
    "cpu_ratio": "CPU time over the plain step",
    "temporaries_mib": "Temporaries, MiB",
    "arguments_mib": "Arguments, MiB a device",
}


def _axis(axis: str, sizes: Sequence[Row]) -> str:
    ways = dict.fromkeys(way for size in sizes for way in size["results"])
    head = ["step", *(f"{axis} {size['value']:,}" for size in sizes)]
    parts = [f"\n### {axis.capitalize()}\n\n{sizes[0]['about']}"]
    for key, title in KINDS.items():
        rows = [
            [way, *(_cell(size["results"].get(way, {}).get(key)) for size in sizes)]
            for way in ways
        ]
        if any(cell for row in rows for cell in row[1:]):
            parts.append(f"{title}:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else median(value)
