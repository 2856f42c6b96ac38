"""The rule that every study goes by: paired differences over seeds, with intervals.

Runs of one seed start alike and see the same batches, so that methods are compared seed
by seed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import Interval, mean_and_sd, paired_t
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.study import PartResult

CONFIDENCE = 0.95
POINTS = 2.0  # a task that loses more than this has lost
BETTER, WORSE, OPEN, UNKNOWN = "better", "worse", "not told apart", "unknown"

INTERVALS = (
    f"Intervals [low, high] are {100 * CONFIDENCE:g} % intervals of the mean paired "
    f"difference over seeds, by Student's t: exact for normal differences, also with "
    f"few seeds. One in 20 excludes 0 by chance, so among many some do."
)
REFERENCE = f"{SINGLE_TASK} is the reference: no task can disturb another."
RULE = (
    f"A difference counts if its interval excludes 0: {BETTER} above it, {WORSE} "
    f"below, else {OPEN}. {INTERVALS}"
)


@np.errstate(invalid="ignore")
def minus(ours: NDArray, theirs: NDArray) -> NDArray:
    """Their difference; NaN, without a warning, where both are infinite."""
    return ours - theirs


def interval(difference: NDArray) -> Interval:
    """Of the mean of paired differences, seeds first; NaN if a run diverged."""
    difference = np.where(np.isfinite(difference), difference, np.nan)
    return paired_t(difference, np.zeros_like(difference), CONFIDENCE)


def signs(difference: NDArray) -> NDArray[np.int64]:
    """+1 or -1 where the interval lies above or below 0, else 0; seeds first."""
    if len(difference) < 2:
        return np.zeros(difference.shape[1:], np.int64)
    found = interval(difference)
    return np.asarray((found.low > 0).astype(int) - (found.high < 0), np.int64)


def word(difference: NDArray, higher_is_better: bool = True) -> str:
    """Of RULE, on paired differences `[seeds]`."""
    if len(difference) < 2 or not np.isfinite(difference).all():
        return UNKNOWN
    sign = int(signs(difference)) * (1 if higher_is_better else -1)
    return {1: BETTER, -1: WORSE, 0: OPEN}[sign]


def word_of_tasks(difference: NDArray, higher_is_better: bool = True) -> str:
    """On paired differences `[seeds, T]`: the words of the tasks that differ."""
    words = [word(own, higher_is_better) for own in difference.T]
    found = dict.fromkeys(x for x in words if x in (BETTER, WORSE))
    return " and ".join(found) or (UNKNOWN if UNKNOWN in words else OPEN)


def loses(difference: NDArray, higher_is_better: bool = True) -> NDArray[np.bool_]:
    """Which tasks lose more than POINTS, `[T]`, of differences `[seeds, T]`.

    A run that diverged, whose score is no number, has lost.
    """
    gain = difference if higher_is_better else -difference
    return ~(gain.mean(axis=0) >= -POINTS)


def changes(difference: NDArray, tasks: tuple[str, ...], unit: str = "") -> str:
    """Paired differences `[seeds, T]` as "left +0.10 [-0.05, +0.25], right ..."."""
    each = (f"{task} {change(difference[:, t])}" for t, task in enumerate(tasks))
    return f"{', '.join(each)} {unit}".rstrip()


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


def mean_sd(values: NDArray, digits: int = 1) -> str:
    """Of values `[seeds]`, as "mean ± sd"; the mean alone of one seed."""
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    mean, sd, _ = mean_and_sd(values)  # in float64
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def against_baseline(result: PartResult) -> dict[str, Interval]:
    """Intervals `[scales, T]` of all other methods; none with one seed."""
    base = result.methods.get(result.part.baseline)
    if base is None or result.settings.seeds < 2:
        return {}
    return {
        method: interval(np.moveaxis(minus(own.score, base.score), 1, 0))
        for method, own in result.methods.items()
        if method != result.part.baseline
    }
