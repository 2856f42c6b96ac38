"""What share of the lost points an arm gives back."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.repairs.arms import ARMS, DAMAGED, USUAL, Arm, place
from mtl_optax.analysis import student
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.settings import Candidate
from mtl_optax.study.engine.study import MethodResult, PartResult
from mtl_optax.study.report.paired import CONFIDENCE, INTERVALS, minus

Parts = dict[str, PartResult]
FIXED = 3e-3  # the rate of `mtl-optax study transfer`
RULE = (
    f"Lost points: mean test accuracy over {' and '.join(DAMAGED)} of a network for "
    f"each task, at the best rate for it and the usual steps, minus that of "
    f"{BASELINE} at the rate {FIXED:g}, at the same seed. The share that an arm gives "
    f"back is its mean accuracy over both tasks, minus that of {BASELINE} at "
    f"{FIXED:g}, over the lost points: a ratio of means over seeds, with Fieller's "
    f"interval, which is exact for normal differences. 0 % repairs nothing, 100 % is "
    f"as good as single tasks. Best rates have the best validation accuracy over all "
    f"four tasks, on other seeds than those reported. {INTERVALS}"
)


class Share(NamedTuple):
    """In percent, with its interval."""

    mean: float
    low: float
    high: float


class Tried(NamedTuple):
    """One arm at one choice of rate, and what it is compared with; all `[seeds, T]`."""

    name: str
    arm: Arm
    candidate: Candidate
    score: NDArray
    single: NDArray  # networks of their own with the usual means, tuned
    alike: NDArray | None  # with what the arm has got, tuned; if trained
    start: NDArray  # the sum at FIXED
    damaged: tuple[int, ...]  # numbers of these tasks

    def of_damaged(self, score: NDArray) -> NDArray:
        """Mean over the damaged tasks, `[seeds]`."""
        return score[:, self.damaged].mean(axis=-1)

    @property
    def change(self) -> NDArray:
        """From single tasks, `[seeds, T]`."""
        return minus(self.score, self.single)

    @property
    def share(self) -> Share:
        """Of the lost points, given back."""
        score, single, start = map(
            self.of_damaged, (self.score, self.single, self.start)
        )
        return share(minus(score, start), minus(single, start))


def share(gain: NDArray, lost: NDArray) -> Share:
    """Mean gain over mean loss, `[seeds]` each, and Fieller's interval.

    It holds the ratios r for which the mean of gain - r lost may be 0. NaN where that
    is no interval: of one seed, or if the loss itself may be 0.
    """
    a, b = float(gain.mean()), float(lost.mean())
    number, found = len(gain), 100 * a / b
    if number < 2:
        return Share(found, np.nan, np.nan)
    spread = np.cov(gain, lost) / number
    spread *= student.quantile(CONFIDENCE, number - 1) ** 2
    square = b**2 - spread[1, 1]
    if not square > 0:
        return Share(found, np.nan, np.nan)
    middle = a * b - spread[0, 1]
    # Not below 0 but for rounding: r = a / b is always in it.
    root = np.sqrt(max(middle**2 - square * (a**2 - spread[0, 0]), 0.0))
    return Share(found, *(float(100 * (middle + x * root) / square) for x in (-1, 1)))


def tried(parts: Parts, rate: float | None) -> list[Tried]:
    """Every arm that was trained; at this rate, or at the best of each."""
    usual = parts[USUAL]
    single = _score(*_at(usual.methods[SINGLE_TASK], None))
    start = _score(*_at(usual.methods[BASELINE], FIXED))
    damaged = tuple(map(usual.tasks.index, DAMAGED))
    found = []
    for name, arm, result in _results(parts):
        own, at = _at(result, rate)
        beside = single, _alike(parts, name), start, damaged
        score = _score(own, at)
        found.append(Tried(name, arm, own.candidates[at], score, *beside))
    return found


def _results(parts: Parts) -> Iterator[tuple[str, Arm, MethodResult]]:
    for name, arm in ARMS.items():
        part, method = place(name)
        if part in parts and method in parts[part].methods:
            yield name, arm, parts[part].methods[method]


def _alike(parts: Parts, arm: str) -> NDArray | None:
    """Single tasks of another part."""
    part, _ = place(arm)
    if part == USUAL:
        return None
    return _score(*_at(parts[part].methods[SINGLE_TASK], None))


def _at(own: MethodResult, rate: float | None) -> tuple[MethodResult, int]:
    """The chosen candidate, or the one of this rate."""
    if rate is None:
        return own, int(own.chosen[0])
    return own, [x.learning_rate for x in own.candidates].index(rate)


def _score(own: MethodResult, at: int) -> NDArray:
    score: NDArray = own.metrics["test"][own.metric.name][at, 0]
    return score
