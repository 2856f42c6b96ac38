"""The figure of paired differences from the baseline."""

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import Drawn, rows
from mtl_optax.study.report.one import title
from mtl_optax.study.report.paired import against_baseline
from mtl_optax.study.report.styles import styles


def differences(result: PartResult) -> Drawn | None:
    """A panel a task, a row a method: its mean difference, with its interval."""
    compared = against_baseline(result)
    if not compared:
        return None
    looks = styles(result.methods)
    figure, axes = rows(list(compared), result.tasks)
    for t, ax in enumerate(axes):
        ax.axvline(0, color="black", lw=1)
        for row, (method, interval) in enumerate(compared.items()):
            mean, look = interval.mean[0, t], looks[method]
            bounds = [[mean - interval.low[0, t]], [interval.high[0, t] - mean]]
            fmt, colour = look.marker, look.colour
            ax.errorbar(
                mean, row, xerr=bounds, fmt=fmt, color=colour, markersize=5, capsize=2
            )
        ax.set(title=result.tasks[t])
    unit = result.problem.metrics[0].points
    label = f"difference from {result.part.baseline} / {unit}".removesuffix(" / ")
    figure.supxlabel(label, size="medium")
    return Drawn(figure, f"{title(result)}; dots are means. At loss scale 1.")
