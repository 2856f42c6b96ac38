"""The figures of the study of optimisers: the fronts, and what separates tuned runs."""

from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.studies.optimizers.fronts import ADAM, SGD, Condition, gains, on_front
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import CONFIDENCE, interval
from mtl_optax.study.report.styles import PALETTE

LOOKS = {ADAM: (PALETTE[1], "o"), SGD: (PALETTE[0], "s"), "muon": (PALETTE[3], "^")}
FAR = 3  # times the best error, where scales are equal, lies outside


def fronts(every: list[Condition]) -> Drawn:
    """A panel a condition: errors of the first two tasks, means over seeds."""
    figure, axes = grid(len(every), 3.6, 3.4, columns=3, alike=False)
    for ax, condition in zip(axes, every, strict=True):
        points, owners = _means(condition)
        front = on_front(points[:, None])[:, 0]
        for name, (colour, marker) in LOOKS.items():
            own = owners == name
            for there, face in ((own & ~front, "none"), (own & front, colour)):
                x, y = points[there][:, :2].T
                ax.scatter(
                    *(x, y, 26), marker=marker, facecolors=face, edgecolors=colour
                )
        best = points[:, :2].min(axis=0)
        equal = condition.first.part.scales == (1,)
        worst = np.minimum(FAR * best, 100) if equal else (100, 100)
        ax.set(xscale="log", yscale="log")
        ax.set(xlim=(0.9 * best[0], worst[0]), ylim=(0.9 * best[1], worst[1]))
        tasks = condition.first.tasks
        ax.set_xlabel(f"error of {tasks[0]} / %")
        ax.set_ylabel(f"error of {tasks[1]} / %")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        ax.set_title(f"{condition.name}: {_count(owners, front)}", size="small")
    for name, (colour, marker) in LOOKS.items():
        axes[0].plot([], [], marker, color=colour, label=name)
    figure.legend(loc="outside upper center", ncols=len(LOOKS))
    return Drawn(
        figure,
        "A point a method and rate, mean over seeds; filled: on the front of all "
        "tasks, of which the first two are drawn, and in the title how many of each "
        f"optimiser. At equal scales errors above {FAR} times the best lie outside.",
    )


def gaps(every: list[Condition]) -> Drawn | None:
    """A panel a condition, a row a method: tuned optimisers minus tuned Adam."""
    if every[0].first.settings.seeds < 2:
        return None
    figure, axes = grid(len(every), 3.6, 2.8, columns=3, alike=False)
    for ax, condition in zip(axes, every, strict=True):
        ax.axvline(0, color="black", lw=1)
        others = [name for name in condition.parts if name != ADAM]
        for place, name in enumerate(others):
            found = gains(condition, name, ADAM)
            colour, marker = LOOKS[name]
            heights = np.arange(len(found)) + 0.24 * (place - 0.5)
            ends = interval(np.stack(list(found.values()), axis=1))
            ax.errorbar(
                *(ends.mean, heights),
                xerr=[ends.mean - ends.low, ends.high - ends.mean],
                fmt=marker,
                color=colour,
                capsize=2,
                markersize=5,
            )
        ax.set_yticks(range(len(found)), list(found))
        ax.set_ylim(len(found) - 0.4, -0.6)
        ax.set_title(condition.name, size="medium")
    for name in others:
        axes[0].plot([], [], LOOKS[name][1], color=LOOKS[name][0], label=name)
    figure.legend(loc="outside upper center", ncols=len(others))
    figure.supxlabel("test accuracy minus that with Adam / points", size="medium")
    return Drawn(
        figure,
        f"Each at its tuned rate, mean over tasks; bars are {100 * CONFIDENCE:g} % "
        "intervals, paired over seeds. Left of 0 Adam is better.",
    )


def _means(condition: Condition) -> tuple[Any, Any]:
    """All points `[N, T]` of all optimisers, mean over seeds, and whose they are."""
    points, owners = [], []
    for name in condition.parts:
        own = condition.errors(name, tuned=False).mean(axis=2)
        points.append(own.reshape(-1, own.shape[-1]))
        owners += [name] * len(points[-1])
    return np.concatenate(points), np.array(owners)


def _count(owners: Any, front: Any) -> str:
    names = dict.fromkeys(owners)
    return ", ".join(f"{name} {(front & (owners == name)).sum()}" for name in names)
