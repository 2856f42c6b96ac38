"""The figure of affinities: who helps whom, with the true blocks drawn in."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn


def affinity(results: Results) -> Drawn | None:
    """A heat map a method that measures affinity, at the end of training."""
    known = {
        method: outcome.readings["affinity"][-1, 0]
        for method, outcome in results.outcomes.items()
        if "affinity" in outcome.readings
    }
    if not known:
        return None
    tasks = results.tasks
    size = 1.2 + 0.45 * len(tasks)
    figure = Figure(figsize=(max(9, size * len(known)), size + 1), layout="constrained")
    axes = figure.subplots(1, len(known), squeeze=False)[0]
    for ax, (method, values) in zip(axes, known.items(), strict=True):
        _heat(ax, values if method == "joint" else _by_own(values), tasks)
        ax.set_title("TAG, in joint" if method == "joint" else method)
    axes[0].set_ylabel("source")
    figure.supxlabel("recipient", size="medium")
    return Drawn(
        figure,
        "Affinity at the end of training, mean over seeds, in percent; squares are the "
        "true blocks. TAG: how much a plain step for the source lowers the recipient's "
        "loss. Others: proximal affinity over that of the recipient for itself, which "
        "makes the diagonal 100. Diagonals are left out, each panel has its colours.",
    )


def _by_own(values: NDArray) -> NDArray:
    own = np.maximum(np.diagonal(values, axis1=1, axis2=2), 1e-12)
    return values / own[:, None, :]


def _heat(ax: Any, values: NDArray, tasks: tuple[str, ...]) -> None:
    number = len(tasks)
    mean = 100 * values.mean(axis=0)
    mean[np.eye(number, dtype=bool)] = np.nan
    limit = np.nanmax(np.abs(mean))
    ax.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
    digits = 0 if limit >= 10 else 2
    for i in range(number):
        for j in range(number):
            if i != j:
                dark = abs(mean[i, j]) > 0.6 * limit
                colour, text = "white" if dark else "black", f"{mean[i, j]:.{digits}f}"
                ax.text(j, i, text, ha="center", va="center", size=7, color=colour)
    half = number // 2
    for corner in (-0.5, half - 0.5):
        ax.add_patch(
            Rectangle((corner, corner), half, half, fill=False, lw=2, clip_on=False)
        )
    ax.set_xticks(range(number), tasks, rotation=60, ha="right", size=8)
    ax.set_yticks(range(number), tasks, size=8)
    ax.grid(False)
