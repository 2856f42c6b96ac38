"""The page and the picture of what `pareto` wrote as JSON; knows no JAX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import tables
from benchmarks.figures import drawn

Record = Mapping[str, Any]


def body(record: Record) -> str:
    """Tables of the fronts, then of the costs."""
    parts = [_front(size) for size in record["sizes"]]
    return "\n\n".join([*parts, "## Cost\n\n" + _costs(record["costs"])])


def _front(size: Record) -> str:
    known = "volume" in size
    head = ["method", "share of the front's volume" if known else "volume"]
    head += ["not dominated", "between the ends", "spacing"]
    head += [] if known else ["best accuracy left, right"]
    rows = []
    for name, row in size["results"].items():
        cells = [name, f"{row['share']:.4f}"]
        cells += [
            f"{row[key]} of {size['count']}" for key in ("non_dominated", "between")
        ]
        cells.append(f"{row['spacing']:.4f}")
        if not known:
            cells.append(", ".join(f"{x:.1f} %" for x in row["best_accuracies"]))
        rows.append(cells)
    about = f"{size['count']} preferences, {size['steps']} steps"
    if known:
        shape = "concave" if size["concave"] else "convex"
        about = f"{shape} front, {about}; the best points on the rays: "
        about += f"{size['best_share']:.4f}"
    title = f"**{size['problem']}, T={size['num_tasks']}** ({about})"
    return f"{title}\n\n{tables.table(head, rows)}"


def _costs(costs: Sequence[Record]) -> str:
    head = ["problem", "method", "runs x steps", "front, s", "one by one, s"]
    head += ["wall ratio", "CPU ratio", "compiling: front, one run, s"]
    head += ["ratio with compiling once", "and for each run"]
    rows = [
        [
            row["problem"],
            row["method"],
            f"{row['count']} x {row['steps']}",
            *(tables.quartiles(row["wall_s"][way]) for way in ("front", "one by one")),
            *(tables.quartiles(row[key]) for key in ("wall_ratio", "cpu_ratio")),
            ", ".join(f"{row['compile_s'][w]:.2f}" for w in ("front", "one by one")),
            f"{row['with_compilation']:.1f}",
            f"{row['with_all_compilations']:.1f}",
        ]
        for row in costs
    ]
    return tables.table(head, rows)


def draw(record: Record, path: Path) -> None:
    """A row a problem, a column a method; the known front is the grey line."""

    def figure() -> Figure:
        sizes = record["sizes"]
        names = list(sizes[0]["results"])
        fig = Figure((1.7 * len(names), 1.7 * len(sizes)), layout="constrained")
        grid = fig.subplots(len(sizes), len(names), squeeze=False)
        for line, size in zip(grid, sizes, strict=True):
            limits = _limits(size)
            for ax, name in zip(line, names, strict=True):
                _panel(ax, size, size["results"][name]["losses"])
                ax.set(xlim=limits, ylim=limits)
                ax.locator_params(nbins=2)
                ax.tick_params(labelsize=6, labelleft=ax is line[0])
            line[0].set_ylabel(f"{size['problem']}\nloss 2")
        for ax, name in zip(grid[0], names, strict=True):
            ax.set_title(name)
        for ax in grid[-1]:
            ax.set_xlabel("loss 1")
        return fig

    drawn(path, figure)


def _limits(size: Record) -> tuple[float, float]:
    if "front" in size:
        return -0.05, 1.15
    every = [x for row in size["results"].values() for p in row["losses"] for x in p]
    return 0, 1.1 * sorted(x for x in every if x is not None)[int(0.95 * len(every))]


def _panel(ax: Any, size: Record, points: Any) -> None:
    points = [p for p in points if None not in p]
    front = size.get("front")
    if front and len(front[0]) == 2:
        ax.plot(*zip(*front, strict=True), color="0.7", lw=1)
    first, second, *third = zip(*points, strict=True)
    if third:
        ax.scatter(first, second, s=4, lw=0, c=third[0], vmin=0, vmax=1)
    else:
        ax.plot(first, second, "o", ms=2, mew=0)
