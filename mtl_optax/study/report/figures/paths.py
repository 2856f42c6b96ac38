"""The figure of paths in the plane, for problems whose parameters are a point."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import MANY, Drawn, grid
from mtl_optax.study.report.styles import styles


class Ground(NamedTuple):
    """What paths are drawn on."""

    height: Callable[[NDArray], NDArray]  # of points [..., 2]; darker is lower
    said: str  # what it is, for the caption
    pareto_set: NDArray  # [N, 2], corners of a line
    window: tuple[tuple[float, float], tuple[float, float]]  # of both coordinates
    star: tuple[float, float] | None = None
    said_of_star: str = ""


def paths(result: PartResult, starts: NDArray, ground: Ground) -> Drawn:
    """A panel a method, with the path from each start."""
    number = len(result.methods)
    plot, panels = grid(number, 2.6, 2.8, columns=4 if number <= MANY else 5)
    across, up = ground.window
    x, y = np.meshgrid(np.linspace(*across, 221), np.linspace(*up, 221))
    height = ground.height(np.stack([x, y], axis=-1))
    looks = styles(result.methods)
    for ax, (method, own) in zip(panels, result.methods.items(), strict=True):
        assert own.path is not None
        path = np.concatenate([starts[None], own.path[:, 0]])
        ax.contourf(x, y, height, levels=24, cmap="Greys_r", alpha=0.6)
        ax.plot(*ground.pareto_set.T, color="white", lw=3)
        colour = looks[method].colour
        for i in range(path.shape[1]):
            ax.plot(*path[:, i].T, color=colour, lw=1.5)
        ax.plot(*path[0].T, "o", color=colour, ms=4)
        ax.plot(*path[-1].T, "X", color=colour, mec="white", ms=7)
        if ground.star is not None:
            ax.plot(*ground.star, "*", color="white", mec="black", ms=11, zorder=1)
        ax.set(title=method, xlim=across, ylim=up)
        ax.grid(False)
    plot.supxlabel("first parameter", size="medium")
    plot.supylabel("second parameter", size="medium")
    star = f", the star {ground.said_of_star}" if ground.star is not None else ""
    return Drawn(
        plot,
        f"Paths on {ground.said} (darker is lower) from each start (dot) to the end "
        f"(cross). The white line is the Pareto set{star}.",
    )
