"""Paired differences over seeds: which tasks lose, and how sure one can be."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import Interval, paired_t
from mtl_optax.study.methods import SINGLE_TASK

CONFIDENCE = 0.95
POINTS = 2.0  # a task that loses more than this has lost

INTERVALS = (
    f"Intervals [low, high] are {100 * CONFIDENCE:g} % intervals of the mean paired "
    f"difference over seeds, by Student's t: exact for normal differences, also with "
    f"few seeds. One in 20 excludes 0 by chance, so among many some do."
)
REFERENCE = f"{SINGLE_TASK} is the reference: no task can disturb another."


def loses(difference: NDArray) -> NDArray[np.bool_]:
    """Which tasks lose more than POINTS, `[T]`, of differences `[seeds, T]`."""
    return difference.mean(axis=0) < -POINTS


def interval(difference: NDArray) -> Interval:
    """Of the mean of paired differences, seeds first."""
    return paired_t(difference, np.zeros_like(difference), CONFIDENCE)


def changes(difference: NDArray, tasks: tuple[str, ...]) -> str:
    """Paired differences `[seeds, T]` as "left +0.10 [-0.05, +0.25], right ..."."""
    return ", ".join(
        f"{task} {change(difference[:, t])}" for t, task in enumerate(tasks)
    )


def change(difference: NDArray) -> str:
    """The mean of paired differences `[seeds]`, and its interval if there is one."""
    mean = f"{difference.mean():+.2f}"
    if len(difference) < 2:
        return mean
    found = interval(difference)
    return f"{mean} {bracket(found.low, found.high)}"


def bracket(low: Any, high: Any) -> str:
    """An interval; fewer digits where it lies far away."""
    digits = 2 if max(abs(low), abs(high)) < 10 else 1
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]"
