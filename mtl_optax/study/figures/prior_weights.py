"""The figure of the weights that VMTL learned: whose posterior makes whose prior."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import Drawn

KINDS = {"classifier_prior": "classifier", "representation_prior": "representation"}


def prior_weights(results: Results) -> Drawn | None:
    """A row a kind of prior, a column an arm; a panel has a row a domain."""
    known = [
        (name, x)
        for name, x in results.outcomes.items()
        if KINDS.keys() <= x.readings.keys()
    ]
    if not known:
        return None
    tasks, width = results.tasks, max(6.5, 3.4 * len(known))
    figure = Figure(figsize=(width, 6.6), layout="constrained")
    axes = figure.subplots(len(KINDS), len(known), squeeze=False)
    for row, (name, kind) in zip(axes, KINDS.items(), strict=True):
        for ax, (arm, outcome) in zip(row, known, strict=True):
            mean, sd = full(outcome.readings[name][-1, 0])
            ax.imshow(mean, cmap="Blues", vmin=0, vmax=1)
            for i, j in zip(*np.nonzero(~np.eye(len(tasks), dtype=bool)), strict=True):
                colour = "white" if mean[i, j] > 0.6 else "black"
                text = f"{mean[i, j]:.2f}\n± {sd[i, j]:.2f}"
                ax.text(j, i, text, ha="center", va="center", size=7, color=colour)
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
