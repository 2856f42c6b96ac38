"""The figure of paired differences from the baseline."""

from mtl_optax.study import intervals
from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn, rows
from mtl_optax.study.styles import style


def differences(results: Results) -> Drawn | None:
    """A panel a task, a row a method: its mean difference, with its interval."""
    compared = intervals.against_baseline(results)
    if not compared:
        return None
    figure, axes = rows(list(compared), results.tasks)
    for t, ax in enumerate(axes):
        ax.axvline(0, color="black", lw=1)
        for row, (method, interval) in enumerate(compared.items()):
            mean, look = interval.mean[0, t], style(method)
            bounds = [[mean - interval.low[0, t]], [interval.high[0, t] - mean]]
            fmt, colour = look.marker, look.colour
            ax.errorbar(
                mean, row, xerr=bounds, fmt=fmt, color=colour, markersize=5, capsize=2
            )
        ax.set(title=results.tasks[t])
    unit = results.problem.metrics[0].unit.replace("%", "points")
    label = f"difference from {results.study.baseline} / {unit}".removesuffix(" / ")
    figure.supxlabel(label, size="medium")
    return Drawn(
        figure, f"{intervals.title(results)}; dots are means. At loss scale 1."
    )
