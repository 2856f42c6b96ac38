"""What the toy shows beside what every study does: paths and end points."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.toy import rule
from mtl_optax.study.studies.toy.problem import mean_loss, start

CAPTION = (
    "Paths on the mean loss (darker is lower) from each start (dot) to the end "
    "(cross). The line below is the Pareto set, the star the minimum of the mean loss."
)


def toy(result: PartResult) -> Drawn:
    """A panel a method."""
    plot, panels = grid(len(result.methods), 2.6, 2.8, columns=4)
    x, y = np.meshgrid(np.linspace(-11, 11, 221), np.linspace(-11, 11, 221))
    height = mean_loss(np.stack([x, y], axis=-1))
    looks = styles(result.methods)
    for ax, (method, own) in zip(panels, result.methods.items(), strict=True):
        assert own.path is not None
        path = np.concatenate([_starts(result)[None], own.path[:, 0]])
        ax.contourf(x, y, height, levels=24, cmap="Greys_r", alpha=0.6)
        ax.plot([-7, 0, 7], [-8.43, rule.MINIMUM[1], -8.43], color="white", lw=3)
        colour = looks[method].colour
        for i in range(path.shape[1]):
            ax.plot(*path[:, i].T, color=colour, lw=1.5)
        ax.plot(*path[0].T, "o", color=colour, ms=4)
        ax.plot(*path[-1].T, "X", color=colour, mec="white", ms=7)
        ax.plot(*rule.MINIMUM, "*", color="white", mec="black", ms=11, zorder=1)
        ax.set(title=method, xlim=(-11, 11), ylim=(-11, 11))
        ax.grid(False)
    plot.supxlabel("first parameter", size="medium")
    plot.supylabel("second parameter", size="medium")
    return Drawn(plot, CAPTION)


def end_points(result: PartResult) -> Table:
    """A row a start, a column a method."""
    columns = []
    for own in result.methods.values():
        end = rule.ends(own)
        both = zip(end, mean_loss(end), strict=True)
        columns.append([f"({x:.2f}, {y:.2f}) {loss:.2f}" for (x, y), loss in both])
    starts = [f"({x:g}, {y:g})" for x, y in _starts(result).round(1)]
    return Table(
        "End points",
        f"And the mean loss there, after {result.settings.steps} steps in float64.",
        ["start", *result.methods],
        [list(row) for row in zip(starts, *columns, strict=True)],
    )


def ends(result: PartResult) -> dict[str, pd.DataFrame]:
    """ends.csv: one row a method and start."""
    tables = []
    for method, own in result.methods.items():
        end, starts = rule.ends(own), _starts(result)
        table = {"method": method, "start_x": starts[:, 0], "start_y": starts[:, 1]}
        numbers = (*end.T, mean_loss(end), rule.distances(end))
        for name, values in zip(
            ("x", "y", "mean_loss", "distance"), numbers, strict=True
        ):
            table[name] = [f"{value:.6f}" for value in values]
        tables.append(pd.DataFrame(table | {"place": rule.places(end)}))
    return {"ends.csv": pd.concat(tables)}


def _starts(result: PartResult) -> NDArray[np.float64]:
    return np.array([start(seed) for seed in range(result.settings.seeds)])
