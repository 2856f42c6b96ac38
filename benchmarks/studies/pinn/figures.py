"""Errors over what they cost, and how well the tasks' gradients agree."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.pinn.claim import PASSES
from benchmarks.studies.pinn.methods import passes
from benchmarks.studies.pinn.rule import watched
from mtl_optax.study.engine.study import MethodResult, StudyResult
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.styles import styles


def errors(result: StudyResult) -> Drawn:
    """A panel an equation: errors over backward passes."""

    def curve(own: MethodResult) -> NDArray:
        return 10 ** np.log10(watched(own, "error")).mean(axis=1)

    figure, axes = _panels(result, curve, short=True)
    for ax in axes:
        ax.set(xscale="log", yscale="log")
    axes[0].set_ylabel("mean squared error")
    figure.supxlabel("backward passes", size="medium")
    return Drawn(
        figure,
        "Error over the whole domain; geometric mean over seeds. Thin: shorter "
        "trainings, each with its own schedule, at the passes of the plain sum.",
    )


def alignment(result: StudyResult) -> Drawn:
    """A panel an equation: Wang et al.'s score over training."""
    figure, axes = _panels(
        result, lambda own: watched(own, "alignment").mean(axis=1), short=False
    )
    for ax in axes:
        ax.axhline(0, color="0.6", lw=0.8)
        ax.set(ylim=(-1.02, 1.02), xscale="log")
    axes[0].set_ylabel("alignment of gradients")
    figure.supxlabel("backward passes", size="medium")
    return Drawn(
        figure,
        "Alignment 2|m|² - 1, with m the mean of the tasks' unit gradients, before "
        "any method or optimiser: 1 if all agree, -1 if they cancel, with two tasks "
        "the cosine. Mean over seeds.",
    )


def _panels(
    result: StudyResult, curve: Callable[[MethodResult], NDArray], short: bool
) -> Any:
    parts = {
        name: own for name, own in result.parts.items() if short or PASSES not in name
    }
    equations = dict.fromkeys(name.partition("_")[0] for name in parts)
    figure, axes = grid(len(equations), 4.5, 3.6, columns=2, alike=False)
    looks = styles(m for own in parts.values() for m in own.methods)
    for ax, equation in zip(axes, equations, strict=True):
        ax.set_title(equation.capitalize())
        for name, part in parts.items():
            if name.partition("_")[0] != equation:
                continue
            thin = PASSES in name
            for method, own in part.methods.items():
                y = curve(own)
                x = passes(method, own, len(y), part.settings.steps)
                look = {"color": looks[method].colour, "ls": looks[method].line}
                label = None if thin else method
                ax.plot(x, y, lw=1 if thin else 2, label=label, **look)
    lines = {
        line.get_label(): line
        for ax in axes
        for line in ax.lines
        if not str(line.get_label()).startswith("_")
    }
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=len(lines))
    return figure, axes
