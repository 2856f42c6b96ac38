"""The figure of the study: the worst task of each method, at both scales."""

import numpy as np

from benchmarks.studies.recent.tables import Parts, worst_task
from benchmarks.studies.recent.tried import NEW
from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study.report.frame import Drawn, rows

COLOURS = "#0072B2", "#D55E00"  # new methods, and those beside them


def worst(parts: Parts) -> Drawn:
    """A panel a number of tasks, a row a method: hollow at scale 1, else filled."""
    first = next(iter(parts.values()))
    methods = [x for x in first.scores if all(x in y.scores for y in parts.values())]
    methods.sort(key=lambda x: x in NEW)  # those beside them first
    figure, axes = rows(methods, tuple(parts))
    for ax, own in zip(axes, parts.values(), strict=True):
        for row, method in enumerate(methods):
            runs, colour = worst_task(own, method), COLOURS[method not in NEW]
            mean = runs.mean(axis=1)
            sd = mean_and_sd(runs, 1).sd if runs.shape[1] > 1 else np.zeros_like(mean)
            ax.plot(mean, [row, row], color=colour, lw=1, alpha=0.5)
            for s, face in enumerate(("white", colour)):
                ax.errorbar(
                    *(mean[s], row),
                    xerr=sd[s],
                    **{"fmt": "o", "color": colour, "markerfacecolor": face},
                    **{"markersize": 5, "capsize": 2},
                )
        ax.set(title=f"{len(own.tasks)} tasks", xlabel="test accuracy / %")
    for scale, face in zip(first.scales, ("white", "black"), strict=True):
        axes[0].plot([], [], "ko", mfc=face, label=f"loss scale ×{scale}")
    for name, colour in zip(("new", "beside them"), COLOURS, strict=True):
        axes[0].plot([], [], color=colour, label=name)
    figure.legend(loc="outside lower center", ncols=4)
    return Drawn(
        figure,
        "Test accuracy of the task with the lowest mean; bars, where wider than the "
        "dot, are ± 1 sd over seeds.",
    )
