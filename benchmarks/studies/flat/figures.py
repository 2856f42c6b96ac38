"""The figures of the study of flat minima, over all its conditions."""

from itertools import product

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.studies.flat.pairs import against_plain, differences, runs
from benchmarks.studies.flat.rule import CLAIMS, PLAIN, PLAINS, SAM, SAMO
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import CONFIDENCE, interval
from mtl_optax.study.report.styles import styles


def changes(result: StudyResult) -> Drawn | None:
    """A panel a task and metric: minus plain in each condition, with intervals."""
    settings, tasks = result.first.settings, result.first.tasks
    pairs = against_plain(settings.methods)
    if not pairs or settings.seeds < 2:
        return None
    found, places = differences(result), np.arange(len(result.parts))
    keys = ["task", "metric", "method", "other", "condition"]
    found = found.pivot(index="seed", columns=keys, values="value")
    figure, axes = grid(len(tasks) * len(CLAIMS), 3.2, 2.6, columns=3, alike=False)
    width = 0.7 / len(pairs)
    for ax, (task, metric) in zip(axes, product(tasks, CLAIMS), strict=True):
        ax.axhline(0, color="black", lw=1)
        for k, (method, other) in enumerate(pairs):
            columns = [(task, metric, method, other, name) for name in result.parts]
            own = interval(found[columns].to_numpy())
            ax.errorbar(
                places + width * (k - (len(pairs) - 1) / 2),
                *(own.mean, [own.mean - own.low, own.high - own.mean]),
                fmt=_marker(method),
                color=_colour(method),
                markersize=6 if method == SAM else 4,
                lw=1,
                label=f"{method} − {other}",
            )
        names = [name.replace("_", "\n") for name in result.parts]
        ax.set_xticks(places, names, fontsize="small")
        claim = CLAIMS[metric]
        ax.set_title(f"{task}: {claim.title} / {claim.unit}", size="medium")
        ax.grid(axis="x", visible=False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return Drawn(
        figure,
        f"F- (circles) and S- (squares) minus plain, joint SAM minus mean: means and "
        f"{100 * CONFIDENCE:g} % intervals, paired over {settings.seeds} seeds. The "
        f"paper's direction: accuracy not below 0, sharpness and calibration error "
        f"below.",
    )


def landscape(result: StudyResult) -> Drawn:
    """A panel a condition: accuracy of the damaged task against its sharpness."""
    settings, task = result.first.settings, result.first.tasks[0]
    keys = ["method", "metric", "condition", "task"]
    means = runs(result).groupby(keys)["value"].mean()
    figure, axes = grid(len(result.parts), 3.2, 2.6, columns=3, alike=False)
    for ax, name in zip(axes, result.parts, strict=True):
        places = {
            method: [means[method, x, name, task] for x in ("sharpness", "accuracy")]
            for method in settings.methods
        }
        for method, place in places.items():
            ax.plot(
                *place,
                marker=_marker(method),
                ls="",
                color=_colour(method),
                markerfacecolor=_colour(method) if method in PLAIN else "white",
                markersize=9 if method == SAM else 6,
                label=method,
            )
        for method, other in against_plain(settings.methods):
            line = zip(places[other], places[method], strict=True)
            ax.plot(*line, color=_colour(method), lw=1, alpha=0.6)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(name, size="medium")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6)
    figure.supxlabel(f"sharpness of {task} / mnat, log scale", size="medium")
    figure.supylabel(f"test accuracy of {task} / %", size="medium")
    return Drawn(
        figure,
        f"The damaged task: hollow plain, filled F- (circles) and S- (squares), a line "
        f"from the former; means over {settings.seeds} seeds. The paper's direction "
        f"is up and left.",
    )


def _colour(method: str) -> str:
    """That of the method without perturbation; black for joint SAM."""
    if method == SAM:
        return "black"
    plain = PLAIN.get(method, method)
    return styles([*PLAINS, plain])[plain].colour


def _marker(method: str) -> str:
    if method == SAM:
        return "*"
    return "s" if method in SAMO else "o"
