"""Two figures of both parts: accuracy from the sum, and training loss against gap."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.studies.scalarisation.rule import PLAIN, REGULARISED, at_one_rate, tuned
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import CONFIDENCE, interval
from mtl_optax.study.report.styles import styles

Parts = dict[str, PartResult]


def accuracy_from_sum(found: Parts) -> Drawn | None:
    """A panel a part, a row a method: test accuracy minus that of the sum."""
    if next(iter(found.values())).settings.seeds < 2:
        return None
    others = [x for x in found[PLAIN].methods if x != BASELINE]
    looks = styles(found[PLAIN].methods)
    figure = Figure(figsize=(9, 1.5 + 0.38 * len(others)), layout="constrained")
    axes: Any = figure.subplots(1, len(found), sharex=True, sharey=True)
    for ax, (name, part) in zip(axes, found.items(), strict=True):
        ours = tuned(part)
        ax.axvline(0, color="black", lw=1)
        for row, method in enumerate(others):
            own = interval(ours[method].accuracy - ours[BASELINE].accuracy)
            bounds = [[own.mean - own.low], [own.high - own.mean]]
            look = looks[method]
            ax.errorbar(
                *(own.mean, row),
                xerr=bounds,
                fmt=look.marker,
                color=look.colour,
                markersize=5,
                capsize=2,
            )
        ax.set_title(name, size="medium")
    axes[0].set_yticks(range(len(others)), others)
    axes[0].set_ylim(len(others) - 0.4, -0.6)
    figure.supxlabel(f"test accuracy minus that of {BASELINE} / points", size="medium")
    return Drawn(
        figure,
        f"Mean over tasks, each method with what validation data choose for it; means "
        f"and {100 * CONFIDENCE:g} % intervals, paired over seeds. Plain: without "
        "dropout and L2.",
    )


def loss_and_gap(found: Parts) -> Drawn:
    """A panel a way to choose: training loss, gap, a point a method."""
    panels = {
        "plain, at the rate of the sum": at_one_rate(found[PLAIN]),
        "plain, each at its own rate": tuned(found[PLAIN]),
        "regularised": tuned(found[REGULARISED]),
    }
    looks = styles(found[PLAIN].methods)
    figure, axes = grid(len(panels), 3.4, 3.0, columns=3, alike=False)
    labels: dict[str, Any] = {}
    for ax, (title, own) in zip(axes, panels.items(), strict=True):
        for method, runs in own.items():
            look = looks[method]
            x, y = 100 * runs.train, 100 * runs.gap
            ax.plot(x, y, look.marker, color=look.colour, ms=3, alpha=0.25)
            (labels[method],) = ax.plot(
                *(x.mean(), y.mean(), look.marker), color=look.colour, ms=8
            )
        ax.set_title(title, size="medium")
    figure.supxlabel("training loss / 100 × nat", size="medium")
    figure.supylabel("gap to validation / 100 × nat", size="medium")
    figure.legend(labels.values(), labels, loc="outside right center", fontsize="small")
    return Drawn(
        figure,
        "Large points are means, small ones runs. What acts as regularisation lies "
        "to the right of the sum, and below it. Axes differ from panel to panel.",
    )
