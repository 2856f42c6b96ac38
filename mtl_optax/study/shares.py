"""What each task gets of an update."""

import numpy as np
from numpy.typing import NDArray


def shares(task_weights: NDArray, loss_scales: NDArray) -> NDArray:
    """Share of each unscaled task gradient in the update, summing to 1."""
    effective = task_weights * loss_scales
    with np.errstate(divide="ignore", invalid="ignore"):  # no update, no shares
        return effective / effective.sum(axis=-1, keepdims=True)
