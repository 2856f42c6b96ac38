"""What `mtl-optax study toy` shows and leaves in its folder."""

import csv
import json
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import mtl_optax
from mtl_optax.study import toy
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.plots import COLOURS, STYLE
from mtl_optax.study.screen import LAYOUT, SMOKE

COLUMNS = ("method", "start_x", "start_y", "x", "y", "mean_loss", "distance", "place")
CAPTION = (
    "Paths on the mean loss (darker is lower) from each start (dot) to the end "
    "(cross). The line below is the Pareto set, the star the minimum of the mean loss."
)

Outcomes = dict[str, toy.Outcome]


def show(console: Console, settings: toy.Settings, outcomes: Outcomes) -> None:
    """End points, seconds and verdict lines."""
    ends = Table(title=f"End points (mean loss), {settings.steps} steps", **LAYOUT)
    ends.add_column("start", no_wrap=True)
    for method in outcomes:
        ends.add_column(method, justify="right")
    for i, (x, y) in enumerate(toy.STARTS):
        ends.add_row(f"({x:g}, {y:g})", *(_end(out, i) for out in outcomes.values()))
    console.print(ends)
    for method, out in outcomes.items():
        seconds = f"compile {out.compile_seconds:.1f} s, run {out.run_seconds:.1f} s"
        console.print(f"{method}: {seconds}", highlight=False)
    for out in outcomes.values():
        console.print(out.sentence, highlight=False)
    if settings.quick:
        console.print(SMOKE, highlight=False)


def write(
    folder: Path,
    settings: toy.Settings,
    outcomes: Outcomes,
    command: str,
    seconds: float,
) -> None:
    """Writes metrics.csv, config.json, toy.png and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metrics.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for method, out in outcomes.items():
            for i, start in enumerate(toy.STARTS):
                numbers = (*out.path[-1, i], out.mean_loss[i], out.distance[i])
                cells = (f"{number:.6f}" for number in numbers)
                rows.writerow([method, *start, *cells, out.places[i]])
    packages = ("jax", "jaxlib", "optax", "numpy")
    config = {
        "study": "toy",
        "command": command,
        **settings._asdict(),
        "optimizer": "adam",
        "learning_rate": toy.LEARNING_RATE,
        "precision": "float64",
        "versions": {name: version(name) for name in packages}
        | {"mtl_optax": mtl_optax.__version__},
        "wall_seconds": round(seconds, 1),
        "verdicts": [out.sentence for out in outcomes.values()],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with matplotlib.rc_context(STYLE):
        draw(outcomes).savefig(folder / "toy.png")
    text = _html(folder, settings, outcomes, config)
    (folder / "report.html").write_text(text, encoding="utf-8")


def draw(outcomes: Outcomes) -> Figure:
    """A panel a method."""
    plot = Figure(figsize=(2.6 * max(2, len(outcomes)), 3.4), layout="constrained")
    axes = plot.subplots(1, len(outcomes), squeeze=False, sharex=True, sharey=True)[0]
    x, y = np.meshgrid(np.linspace(-11, 11, 221), np.linspace(-11, 11, 221))
    height = toy.mean_loss(np.stack([x, y], axis=-1))
    for ax, (method, out) in zip(axes, outcomes.items(), strict=True):
        ax.contourf(x, y, height, levels=24, cmap="Greys_r", alpha=0.6)
        ax.plot([-7, 0, 7], [-8.43, toy.MINIMUM[1], -8.43], color="white", lw=3)
        colour = COLOURS[method]
        for i in range(len(toy.STARTS)):
            ax.plot(*out.path[:, i].T, color=colour, lw=1.5)
        ax.plot(*out.path[0].T, "o", color=colour, ms=4)
        ax.plot(*out.path[-1].T, "X", color=colour, mec="white", ms=7)
        ax.plot(*toy.MINIMUM, "*", color="white", mec="black", ms=11, zorder=1)
        ax.set(title=method, xlim=(-11, 11), ylim=(-11, 11))
        ax.grid(False)
    return plot


def _html(
    folder: Path, settings: toy.Settings, outcomes: Outcomes, config: dict[str, Any]
) -> str:
    head = ["method", *(f"from ({x:g}, {y:g})" for x, y in toy.STARTS)]
    rows = [
        (method, [_end(out, i) for i in range(len(toy.STARTS))])
        for method, out in outcomes.items()
    ]
    times = [
        (method, [f"{out.compile_seconds:.1f}", f"{out.run_seconds:.1f}"])
        for method, out in outcomes.items()
    ]
    warning = f'<p class="warning">{escape(SMOKE)}</p>' if settings.quick else ""
    sentences = "".join(f"<li>{escape(out.sentence)}</li>" for out in outcomes.values())
    body = f"""<p>Two losses of two parameters: a narrow valley each above, two bowls
below. Which method finds its way to the minimum of the mean loss?</p>
{warning}
<h2>Verdicts</h2>
<ul>{sentences}</ul>
{figure(folder / "toy.png", CAPTION)}
<h2>End points</h2>
<p class="small">And the mean loss there; {settings.steps} steps of Adam at
{toy.LEARNING_RATE:g} in float64.</p>
{table(head, rows)}
<h2>Rules</h2>
<p>{escape(toy.RULE)}</p>
<h2>Seconds a method</h2>
{table(["method", "compile", "run"], times)}
<details>
<summary>Configuration, also in config.json</summary>
<pre class="small table">{escape(json.dumps(config, indent=2))}</pre>
</details>
<footer><p>The toy is that of Liu et al., Conflict-Averse Gradient Descent for
Multi-task Learning, 2021.</p></footer>"""
    return page("CAGrad's toy", body)


def _end(outcome: toy.Outcome, start: int) -> str:
    x, y = outcome.path[-1, start]
    return f"({x:.2f}, {y:.2f}) {outcome.mean_loss[start]:.2f}"
