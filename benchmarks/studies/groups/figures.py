"""The figures of affinities, of groups over training, and of what one batch does."""

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from benchmarks.studies.groups.document import mean_decrease
from benchmarks.studies.groups.halves import KINDS, SGD_RATE, STEPS
from benchmarks.studies.groups.rule import JOINT
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import interval
from mtl_optax.study.report.styles import PALETTE

WIDTH = 9.0  # inches
AFFINITY = (
    "Affinity at the end of training, mean over seeds, in percent; squares are the "
    "true blocks. TAG: how much a plain step for the source lowers the recipient's "
    "loss. Others: proximal affinity over that of the recipient for itself, which "
    "makes the diagonal 100. Diagonals are left out, each panel has its colours."
)
OVER_TIME = (
    "Which tasks step together: tasks of one colour are a group, named by its first "
    "task. In each band, from above: {tasks}. The blocks are recovered where the upper "
    "half has one colour and the lower half another."
)
DECREASE = (
    "How far each loss falls on the batch, from the same parameters and optimiser "
    "state of the joint run; mean over recorded steps, bars are 95 % intervals over "
    f"seeds. Plain SGD has the rate {SGD_RATE:g}."
)


def affinity(result: PartResult) -> Drawn | None:
    """A heat map a method that measures affinity: who helps whom, in the end."""
    known = _read(result, "affinity")
    if not known:
        return None
    tasks = result.tasks
    size = 1.2 + 0.45 * len(tasks)
    width = max(WIDTH / len(known), size)
    figure, axes = grid(len(known), width, size + 0.4, len(known), alike=False)
    for ax, (method, records) in zip(axes, known.items(), strict=True):
        values = records[-1]
        _heat(ax, values if method == JOINT else _by_own(values), tasks)
        ax.set_title(f"TAG, in {method}" if method == JOINT else method)
    axes[0].set_ylabel("source")
    figure.supxlabel("recipient", size="medium")
    return Drawn(figure, AFFINITY)


def groups_over_time(result: PartResult) -> Drawn | None:
    """A panel a method; in it a band a seed, a row a task, a colour a group."""
    known = _read(result, "groups")
    if not known:
        return None
    seeds, tasks = result.settings.seeds, result.tasks
    height = max(1.8, 0.6 + 0.14 * seeds * len(tasks))
    figure, axes = grid(len(known), WIDTH / len(known), height, len(known))
    colours = ListedColormap(list(PALETTE)[: len(tasks)])
    for ax, (method, labels) in zip(axes, known.items(), strict=True):
        ax.imshow(
            labels.reshape(len(labels), -1).T,  # [seeds * T, records]
            aspect="auto",
            interpolation="nearest",
            cmap=colours,
            vmin=0,
            vmax=len(tasks) - 1,
            extent=(0, result.settings.steps, seeds * len(tasks), 0),
        )
        for seed in range(1, seeds):
            ax.axhline(seed * len(tasks), color="white", lw=4)
        ax.set(title=method, xlabel="step")
        ax.grid(False)
    middles = [(seed + 0.5) * len(tasks) for seed in range(seeds)]
    axes[0].set_yticks(middles, [f"seed {seed}" for seed in range(seeds)])
    return Drawn(figure, OVER_TIME.format(tasks=", ".join(tasks)))


def decrease(result: PartResult) -> Drawn | None:
    """A panel an optimiser, tasks from left to right, a colour a kind of step."""
    if JOINT not in result.methods:
        return None
    values = mean_decrease(result)  # [seeds, kinds, steps, T]
    figure, axes = grid(len(KINDS), WIDTH / 2, 2.8, len(KINDS), alike=False)
    places = np.arange(len(result.tasks))
    for k, (ax, kind) in enumerate(zip(axes, KINDS, strict=True)):
        ax.axhline(0, color="black", lw=1)
        for s, (step, marker) in enumerate(zip(STEPS, "os^", strict=True)):
            own, bars = values[:, k, s], None
            mean = own.mean(axis=0)
            if len(own) > 1:
                bars = [mean - interval(own).low, interval(own).high - mean]
            at, look = places + 0.2 * (s - 1), {"color": PALETTE[s], "capsize": 2}
            ax.errorbar(at, mean, yerr=bars, fmt=marker, label=step, **look)
        ax.set_xticks(places, result.tasks, rotation=30, ha="right", size=8)
        ax.set_title(kind)
    axes[0].set_ylabel("100 × fall of log loss")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return Drawn(figure, DECREASE)


def _read(result: PartResult, name: str) -> dict[str, NDArray]:
    """A reading of the methods that have it, `[records, seeds, ...]`."""
    every = {method: own.readings for method, own in result.methods.items()}
    return {method: own[name][:, 0] for method, own in every.items() if name in own}


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
    for i, j in np.argwhere(~np.eye(number, dtype=bool)):
        colour = "white" if abs(mean[i, j]) > 0.6 * limit else "black"
        look = {"ha": "center", "va": "center", "size": 7, "color": colour}
        ax.text(j, i, f"{mean[i, j]:.{digits}f}", **look)
    half = number // 2
    for corner in (-0.5, half - 0.5):
        block = Rectangle((corner, corner), half, half, fill=False, lw=2, clip_on=False)
        ax.add_patch(block)
    ax.set_xticks(range(number), tasks, rotation=60, ha="right", size=8)
    ax.set_yticks(range(number), tasks, size=8)
    ax.grid(False)
