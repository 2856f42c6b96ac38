"""The figures of the study of flat minima, over all its conditions."""

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mtl_optax.study.figures.frame import Drawn, grid
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.pairs import (
    PLAIN,
    SAM,
    against_plain,
    difference,
    values,
)
from mtl_optax.study.styles import style
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts.flat import CLAIMS
from mtl_optax.study.verdicts.paired import CONFIDENCE, interval


def changes(whole: Whole) -> Drawn | None:
    """A panel a task and metric: F- minus plain in each condition, with intervals."""
    first = next(iter(whole.results.values()))
    pairs = against_plain(first.settings.methods)
    if not pairs or first.settings.seeds < 2:
        return None
    figure, axes = grid(6, 3.2, 2.6, columns=3, alike=False)
    panels = [(t, metric) for t in range(len(first.tasks)) for metric in CLAIMS]
    width = 0.7 / len(pairs)
    for ax, (t, metric) in zip(axes, panels, strict=True):
        ax.axhline(0, color="black", lw=1)
        for k, (method, other) in enumerate(pairs):
            found = [
                interval(difference(x.outcomes, method, other, metric)[:, t])
                for x in whole.results.values()
            ]
            mean = np.array([x.mean for x in found])
            bounds = [[x.mean - x.low for x in found], [x.high - x.mean for x in found]]
            at = np.arange(len(found)) + width * (k - (len(pairs) - 1) / 2)
            ax.errorbar(
                *(at, mean, bounds),
                fmt=_marker(method),
                color=_colour(method),
                markersize=6 if method == SAM else 4,
                lw=1,
                label=f"{method} − {other}",
            )
        names = [name.replace("_", "\n") for name in whole.results]
        ax.set_xticks(range(len(names)), names, fontsize="small")
        claim = CLAIMS[metric]
        ax.set_title(f"{first.tasks[t]}: {claim.title} / {claim.unit}", size="medium")
        ax.grid(axis="x", visible=False)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return Drawn(
        figure,
        f"F- minus plain, joint SAM minus mean: means and {100 * CONFIDENCE:g} % "
        f"intervals, paired over {first.settings.seeds} seeds. The paper's direction: "
        f"accuracy not below 0, sharpness and calibration error below.",
    )


def landscape(whole: Whole) -> Drawn:
    """A panel a condition: accuracy of the damaged task against its sharpness."""
    first = next(iter(whole.results.values()))
    task = first.tasks[0]
    figure, axes = grid(len(whole.results), 3.2, 2.6, columns=3, alike=False)
    for ax, (name, results) in zip(axes, whole.results.items(), strict=True):
        outcomes = results.outcomes
        places = {method: _place(outcome) for method, outcome in outcomes.items()}
        for method in outcomes:
            ax.plot(
                *places[method],
                marker=_marker(method),
                ls="",
                color=_colour(method),
                markerfacecolor=_colour(method) if method in PLAIN else "white",
                markersize=9 if method == SAM else 6,
                label=method,
            )
        for method, other in against_plain(tuple(outcomes)):
            x, y = zip(places[other], places[method], strict=True)
            ax.plot(x, y, color=_colour(method), lw=1, alpha=0.6)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(name, size="medium")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=6)
    figure.supxlabel(f"sharpness of {task} / mnat, log scale", size="medium")
    figure.supylabel(f"test accuracy of {task} / %", size="medium")
    return Drawn(
        figure,
        f"The damaged task: hollow plain, filled F-, a line between the two; means "
        f"over {first.settings.seeds} seeds. The paper's direction is up and left.",
    )


def _colour(method: str) -> str:
    """That of the method without perturbation; black for joint SAM."""
    return "black" if method == SAM else style(PLAIN.get(method, method)).colour


def _marker(method: str) -> str:
    return "*" if method == SAM else "o"


def _place(outcome: Outcome) -> tuple[float, float]:
    """Sharpness and accuracy of the damaged task."""
    sharp, right = (
        float(values(outcome, metric)[:, 0].mean())
        for metric in ("sharpness", "accuracy")
    )
    return sharp, right
