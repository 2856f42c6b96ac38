"""What a path says: how near the Pareto set it ends, and whether it went uphill."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.studies.trajectories.quadratics import (
    QUADRATICS,
    gradients,
    shortest,
    start,
    to_pareto_set,
    values,
)

SHORT = 1e-6


class Measures(NamedTuple):
    """Of one method on one problem, a number a start."""

    left: NDArray[np.float64]  # share of the distance to the Pareto set, at the end
    distance: NDArray[np.float64]  # to the Pareto set, at the end
    stationarity: NDArray[np.float64]  # `quadratics.shortest`, at the end
    cosine: NDArray[np.float64]  # the lowest of a step with a gradient it descends
    # The largest rise of an objective in one step, as a share of its first value
    rise: NDArray[np.float64]


def whole_path(name: str, own: MethodResult) -> NDArray[np.float64]:
    """With the start in front, `[steps + 1, starts, 2]`."""
    assert own.path is not None
    path = own.path[:, 0]
    starts = [start(QUADRATICS[name], seed) for seed in range(path.shape[1])]
    return np.concatenate([np.array(starts)[None], path])


def measures(name: str, own: MethodResult) -> Measures:
    """Of the paths of a method."""
    problem, path = QUADRATICS[name], whole_path(name, own)
    before, after = to_pareto_set(problem, path[0]), to_pareto_set(problem, path[-1])
    height = values(problem, path)
    # An objective that starts at its minimum is measured by the sum of both.
    first = np.where(height[0] > 0, height[0], height[0].sum(axis=-1, keepdims=True))
    rise = (np.diff(height, axis=0) / first).max(axis=(0, 2))
    return Measures(
        *(after / before, after, shortest(problem, path[-1])),
        *(lowest_cosine(name, path), rise),
    )


def lowest_cosine(name: str, path: NDArray) -> NDArray[np.float64]:
    """Of steps and gradients, `[starts]`; negative: a conflict.

    Steps shorter than SHORT of the first are left out, as differences of points that
    rounding has made.
    """
    steps = -np.diff(path, axis=0)
    length = np.linalg.norm(steps, axis=-1)
    counts = length > SHORT * length[0]
    lowest = np.full(path.shape[1], np.inf)
    for gradient in gradients(QUADRATICS[name], path[:-1]):
        size = length * np.linalg.norm(gradient, axis=-1)
        known = counts & (size > 0)
        cosine = (steps * gradient).sum(axis=-1) / np.where(known, size, 1)
        lowest = np.minimum(lowest, np.where(known, cosine, np.inf).min(axis=0))
    return lowest
