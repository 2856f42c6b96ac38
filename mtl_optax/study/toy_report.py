"""What `mtl-optax study toy` shows and leaves in its folder."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mtl_optax.study import report, results_files, screen, toy
from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import STYLE, grid
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.page import figure, table
from mtl_optax.study.styles import style
from mtl_optax.study.verdicts import toy as toy_verdicts

COLUMNS = ("method", "start_x", "start_y", "x", "y", "mean_loss", "distance", "place")
CAPTION = (
    "Paths on the mean loss (darker is lower) from each start (dot) to the end "
    "(cross). The line below is the Pareto set, the star the minimum of the mean loss."
)


def show(console: Console, results: Results) -> None:
    """End points, seconds and verdict lines."""
    console.print(f"End points (mean loss) after {results.settings.steps} steps")
    starts = [f"({x:g}, {y:g})" for x, y in _starts(results).round(1)]
    for methods in _columns(list(results.outcomes)):
        ends = Table(**screen.LAYOUT)
        ends.add_column("start", no_wrap=True)
        for method in methods:
            ends.add_column(method, justify="right", no_wrap=True)
        cells = [_cells(results.outcomes[method]) for method in methods]
        for row in zip(starts, *cells, strict=True):
            ends.add_row(*row)
        console.print(ends)
    screen.show_times_and_words(console, results)


def write(folder: Path, results: Results, command: str, seconds: float) -> None:
    """Writes metrics.csv, ends.csv, config.json, toy.png and report.html."""
    configuration = results_files.write(folder, results, command, seconds)
    results_files.write_csv(folder / "ends.csv", COLUMNS, _ends(results))
    with matplotlib.rc_context(STYLE):
        draw(results).savefig(folder / "toy.png")
    head = ["method", *(f"from ({x:g}, {y:g})" for x, y in _starts(results).round(1))]
    rows = [(method, _cells(out)) for method, out in results.outcomes.items()]
    middle = f"""{figure(folder / "toy.png", CAPTION)}
<h2>End points</h2>
<p class="small">And the mean loss there, after {results.settings.steps} steps in
float64.</p>
{table(head, rows)}"""
    text = report.html(results, configuration, middle)
    (folder / "report.html").write_text(text, encoding="utf-8")


def draw(results: Results) -> Figure:
    """A panel a method."""
    plot, panels = grid(len(results.outcomes), 2.6, 2.8, columns=4)
    x, y = np.meshgrid(np.linspace(-11, 11, 221), np.linspace(-11, 11, 221))
    height = toy.mean_loss(np.stack([x, y], axis=-1))
    for ax, (method, outcome) in zip(panels, results.outcomes.items(), strict=True):
        assert outcome.path is not None
        path = np.concatenate([_starts(results)[None], outcome.path[:, 0]])
        ax.contourf(x, y, height, levels=24, cmap="Greys_r", alpha=0.6)
        ax.plot(
            [-7, 0, 7], [-8.43, toy_verdicts.MINIMUM[1], -8.43], color="white", lw=3
        )
        colour = style(method).colour
        for i in range(path.shape[1]):
            ax.plot(*path[:, i].T, color=colour, lw=1.5)
        ax.plot(*path[0].T, "o", color=colour, ms=4)
        ax.plot(*path[-1].T, "X", color=colour, mec="white", ms=7)
        ax.plot(*toy_verdicts.MINIMUM, "*", color="white", mec="black", ms=11, zorder=1)
        ax.set(title=method, xlim=(-11, 11), ylim=(-11, 11))
        ax.grid(False)
    plot.supxlabel("first parameter", size="medium")
    plot.supylabel("second parameter", size="medium")
    return plot


def _ends(results: Results) -> list[tuple[Any, ...]]:
    """One row a method and start, in the order of COLUMNS."""
    rows = []
    for method, outcome in results.outcomes.items():
        end = toy_verdicts.ends(outcome)
        numbers = np.column_stack(
            [end, toy.mean_loss(end), toy_verdicts.distances(end)]
        )
        for start, own, place in zip(
            _starts(results), numbers, toy_verdicts.places(end), strict=True
        ):
            rows.append((method, *start, *(f"{x:.6f}" for x in own), place))
    return rows


def _starts(results: Results) -> NDArray[np.float64]:
    return np.array([toy.start(seed) for seed in range(results.settings.seeds)])


def _cells(outcome: Outcome) -> list[str]:
    end = toy_verdicts.ends(outcome)
    both = zip(end, toy.mean_loss(end), strict=True)
    return [f"({x:.2f}, {y:.2f}) {loss:.2f}" for (x, y), loss in both]


def _columns(methods: list[str], width: int = 2) -> list[list[str]]:
    return [methods[i : i + width] for i in range(0, len(methods), width)]
