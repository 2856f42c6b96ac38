"""The figure of repairs: what each arm gives back."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.studies.repairs.arms import KINDS
from benchmarks.studies.repairs.rule import Tried
from mtl_optax.study.report.frame import Drawn
from mtl_optax.study.report.paired import CONFIDENCE
from mtl_optax.study.report.styles import PALETTE


def given_back(views: dict[str, list[Tried]]) -> Drawn | None:
    """A panel a choice of rates, a row an arm: share of the lost points."""
    every = next(iter(views.values()))
    if len(every[0].score) < 2:
        return None
    figure = Figure(figsize=(9, 1.5 + 0.28 * len(every)), layout="constrained")
    axes: Any = figure.subplots(1, len(views), sharex=True, sharey=True)
    for ax, (title, arms) in zip(axes, views.items(), strict=True):
        for place, style in ((0, "-"), (100, "--")):
            ax.axvline(place, color="black", lw=1, ls=style)
        for row, own in enumerate(arms):
            found = own.share
            ax.errorbar(
                *(found.mean, row),
                xerr=[[found.mean - found.low], [found.high - found.mean]],
                fmt="o",
                color=PALETTE[KINDS.index(own.arm.kind)],
                markersize=5,
                capsize=2,
            )
        ax.set_title(title, size="medium")
    axes[0].set_yticks(range(len(every)), [own.name for own in every])
    axes[0].set_ylim(len(every) - 0.4, -0.6)
    for kind in dict.fromkeys(own.arm.kind for own in every):
        axes[0].plot([], [], "o", color=PALETTE[KINDS.index(kind)], label=kind)
    figure.legend(loc="outside right center", fontsize="small")
    figure.supxlabel("share of the lost points given back / %", size="medium")
    return Drawn(
        figure,
        "Mean over parity and greater. 0: the sum at the usual rate; 100, dashed: a "
        f"network for each task. Bars are {100 * CONFIDENCE:g} % intervals (Fieller).",
    )
