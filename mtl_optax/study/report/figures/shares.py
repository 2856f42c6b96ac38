"""The figure of shares: what the first task gets of each update."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.figures import curves
from mtl_optax.study.report.frame import Drawn

LIMIT = 1e-5  # shares nearer to 0 or 1 are drawn here


def shares(result: PartResult) -> Drawn | None:
    """Share of the first task over training, at each scale."""
    scales, first = result.part.scales, result.tasks[0]
    known = {
        method: [_curve(own.shares[:, s, :, 0]) for s in range(len(scales))]
        for method, own in result.methods.items()
        if np.isfinite(own.shares[0, :, :, 0]).all()
    }
    if not known:
        return None
    if curves.are_many(result):
        names = [f"×{scale}" for scale in scales]
        title = f"factor on the loss of {first}"
        figure, axes = curves.panel_a_method(result, known, names, title)
    else:
        figure, axes = curves.together(
            result,
            {
                f"loss of {first} ×{scale}" if len(scales) > 1 else "": {
                    method: own[s] for method, own in known.items()
                }
                for s, scale in enumerate(scales)
            },
        )
    for ax in axes:
        ax.set_yscale("logit")
        ax.set_ylim(LIMIT / 2, 1 - LIMIT / 2)
        ticks = [1e-4, 1e-2, 0.5, 0.99, 0.9999]
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
    figure.supylabel(f"share of {first} / %, logit scale", size="medium")
    return Drawn(
        figure,
        f"What {first} gets of each update: task weight times loss scale, normalised; "
        f"median over seeds and {curves.window_steps(result)} steps. Shares nearer to "
        f"0 or 100 % than {100 * LIMIT:g} % are drawn there.{curves.note(result)}",
    )


def _curve(values: NDArray) -> NDArray:
    """Median over seeds and a window; NaN where a diverged run left no number."""
    values = curves.windows(values)
    known = np.isfinite(values).any(axis=(1, 2))
    middle = np.full(len(values), np.nan)
    middle[known] = np.nanmedian(values[known], axis=(1, 2))
    return np.clip(middle, LIMIT, 1 - LIMIT)
