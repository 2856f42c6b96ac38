"""Pictures of results, of what the benchmarks write as JSON; knows no JAX."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks import goals

Record = Mapping[str, Any]

# The same picture of the same numbers, byte by byte
STYLE = {"svg.hashsalt": "mtl_optax", "svg.fonttype": "none", "font.size": 9}
COLOURS = {
    "torch": "tab:orange",
    "libmtl": "tab:green",
    "jaxjd": "tab:purple",
}
BY_HAND = ("plain", "T passes", "vmapped", "vmap(grad)", "adam", "launch")
MARKERS = "osv^D<>Phd"


def colour(name: str) -> str:
    for prefix, found in COLOURS.items():
        if name.startswith(prefix):
            return found
    return "tab:grey" if name in BY_HAND else "tab:blue"


def drawn(path: Path, draw: Callable[[], Figure]) -> None:
    with matplotlib.rc_context(STYLE):
        draw().savefig(path, format="svg", metadata={"Date": None})


def _bars(record: Record, path: Path, key: str, label: str) -> None:
    """One axis a size, one bar a way, shared names."""

    def draw() -> Figure:
        sizes = record["sizes"]
        most = max(len(size["results"]) for size in sizes)
        fig = Figure((3 + 2.6 * len(sizes), 1 + 0.2 * most), layout="constrained")
        axes = fig.subplots(1, len(sizes), squeeze=False)[0]
        for ax, size in zip(axes, sizes, strict=True):
            rows = {n: _number(r.get(key)) for n, r in size["results"].items()}
            rows = {name: value for name, value in rows.items() if value is not None}
            ax.barh([*rows], [*rows.values()], color=[colour(name) for name in rows])
            ax.invert_yaxis()
            ax.set_title(f"{size['model']}, T={size['num_tasks']}")
            ax.set_xlabel(label)
        return fig

    drawn(path, draw)


def _number(value: Any) -> float | None:
    return value["median"] if isinstance(value, Mapping) else value


def step(record: Record, path: Path) -> None:
    """Wall time by way."""
    _bars(record, path, "wall_ms", "wall ms")


def memory(record: Record, path: Path) -> None:
    """Temporaries by way."""
    _bars(record, path, "temporaries_mib", "temporaries, MiB")


def aggregate(record: Record, path: Path) -> None:
    """Our methods over the fastest peer, or over Adam where no peer was timed."""

    def draw() -> Figure:
        sizes = record["sizes"]
        fig = Figure((7.5, 5), layout="constrained")
        ax = fig.subplots()
        for marker, size in zip(MARKERS, sizes, strict=False):
            points = {n: _over_best(row) for n, row in size["results"].items()}
            points = {name: value for name, value in points.items() if value}
            title = f"T={size['num_tasks']}, P={size['num_params']:,}"
            ax.plot([*points.values()], [*points], marker, label=title, alpha=0.8)
        ax.axvline(1, color="black", lw=0.8)
        ax.axvline(goals.AGGREGATE, color="black", lw=0.8, ls=":")
        ax.set_xscale("log")
        ax.set_xlabel(f"wall time over the fastest peer's; goal {goals.AGGREGATE}")
        ax.grid(alpha=0.3)
        ax.invert_yaxis()
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
        return fig

    drawn(path, draw)


def _over_best(row: Record) -> float | None:
    over = (row.get("over_peer") or {}).values()
    return max((r["wall"]["median"] for r in over if r["wall"]["median"]), default=None)


def solvers(record: Record, path: Path) -> None:
    """Time by tasks, one axis a rule."""

    def draw() -> Figure:
        sizes = record["sizes"]
        first = sizes[0]["results"]
        rules = [name for name in first if colour(name) == "tab:blue"]
        fig = Figure((9, 2.6 * -(-len(rules) // 3)), layout="constrained")
        axes = fig.subplots(-(-len(rules) // 3), 3, squeeze=False, sharex=True)
        for ax, rule in zip(axes.flat, rules, strict=False):
            peers = first[rule].get("over_peer") or {}
            _lines(ax, sizes, "num_tasks", "wall_ms", [rule, *peers])
            ax.set_title(rule)
            ax.legend(fontsize=7)
            ax.set_ylabel("wall ms")
        for ax in axes[-1]:
            ax.set_xlabel("tasks")
        return fig

    drawn(path, draw)


def scaling(record: Record, path: Path) -> None:
    """Time above, memory below, one column an axis."""
    keys = {"wall_ms": "wall ms", "temporaries_mib": "temporaries, MiB"}

    def draw() -> Figure:
        by_axis: dict[str, list[Record]] = {}
        for size in record["sizes"]:
            by_axis.setdefault(size["axis"], []).append(size)
        timed = any(_any(sizes, "wall_ms") for sizes in by_axis.values())
        rows = [key for key in keys if key != "wall_ms" or timed]
        fig = Figure((3.4 * len(by_axis), 3.2 * len(rows)), layout="constrained")
        axes = fig.subplots(len(rows), len(by_axis), squeeze=False)
        shown: dict[str, None] = {}
        for column, (axis, sizes) in zip(axes.T, by_axis.items(), strict=True):
            ways = dict.fromkeys(way for size in sizes for way in size["results"])
            for ax, key in zip(column, rows, strict=True):
                _lines(ax, sizes, "value", key, ways)
                ax.set_xlabel(axis)
                ax.set_ylabel(keys[key])
            column[0].set_title(sizes[0]["about"], fontsize=8)
            if ways != shown:  # the same lines mean the same in the next column
                column[0].legend(fontsize=7)
                shown = ways
        return fig

    drawn(path, draw)


def _any(sizes: Sequence[Record], key: str) -> bool:
    return any(key in row for size in sizes for row in size["results"].values())


def _lines(
    ax: Any, sizes: Sequence[Record], x: str, key: str, names: Iterable[str]
) -> None:
    """One line a name, against `x`, on logarithmic axes; a shape tells like colours."""
    for marker, name in zip(MARKERS, names, strict=False):
        points = [
            (size[x], _number(size["results"].get(name, {}).get(key))) for size in sizes
        ]
        points = [(at, value) for at, value in points if value]
        if points:
            ax.plot(*zip(*points, strict=True), "-" + marker, ms=4, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.grid(alpha=0.3)
    ticks = [size[x] for size in sizes]
    ax.set_xticks(ticks, [f"{tick}" for tick in ticks])
    ax.set_xticks([], minor=True)
