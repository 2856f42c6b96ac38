"""The figure of the weights that VMTL learned: whose posterior makes whose prior."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.frame import Drawn

KINDS = ("classifier", "representation")  # in the order of `problem.PRIORS`


def prior_weights(result: PartResult) -> Drawn | None:
    """A row a kind of prior, a column an arm; a panel has a row a domain."""
    paths = {arm: x.path for arm, x in result.methods.items() if x.path is not None}
    if not paths:
        return None
    tasks, width = result.tasks, max(6.5, 3.4 * len(paths))
    figure = Figure(figsize=(width, 6.6), layout="constrained")
    axes = figure.subplots(len(KINDS), len(paths), squeeze=False)
    for i, kind in enumerate(KINDS):
        for ax, (arm, path) in zip(axes[i], paths.items(), strict=True):
            mean, sd = full(path[-1, 0, :, i])
            ax.imshow(mean, cmap="Blues", vmin=0, vmax=1)
            for y, x in zip(*np.nonzero(~np.eye(len(tasks), dtype=bool)), strict=True):
                colour = "white" if mean[y, x] > 0.6 else "black"
                text = f"{mean[y, x]:.2f}\n± {sd[y, x]:.2f}"
                ax.text(x, y, text, ha="center", va="center", size=7, color=colour)
            ax.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right", size=8)
            ax.set_yticks(range(len(tasks)), tasks, size=8)
            ax.set_title(f"{arm}, {kind}", size=10)
            ax.grid(False)
    figure.supylabel("domain whose prior it is", size="medium")
    figure.supxlabel("domain that it is made of", size="medium")
    return Drawn(
        figure,
        "Weights of the other domains in each domain's prior at the end of training: "
        "softmax of the learned logits, mean ± sd over seeds. Equal ones are 0.33.",
    )


def full(weights: NDArray) -> tuple[NDArray, NDArray]:
    """Weights `[seeds, T, T-1]` of the others as `[T, T]`, mean and sd over seeds."""
    number = weights.shape[1]
    own = np.full((len(weights), number, number), np.nan)
    own[:, ~np.eye(number, dtype=bool)] = weights.reshape(len(weights), -1)
    return own.mean(axis=0), own.std(axis=0, ddof=min(1, len(own) - 1))
