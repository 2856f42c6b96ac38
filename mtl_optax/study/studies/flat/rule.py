"""Whether per-task flatness does what its paper says: counts, means and words.

Differences are `[conditions, seeds, T]`, of two methods whose runs of a seed are a
pair.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import Interval
from mtl_optax.study.verdicts.paired import CONFIDENCE, change, interval

_ROUNDING = 1e-4  # metrics are float32: a smaller difference is none


class Claim(NamedTuple):
    """What the paper says of F- minus plain, in one metric."""

    split: str  # on which it is measured
    sign: int  # +1: not lower, -1: lower
    paper: str  # the direction in words
    title: str
    unit: str  # of differences


CLAIMS = {
    "accuracy": Claim("test", +1, "not lower", "test accuracy", "points"),
    "sharpness": Claim("fit", -1, "lower", "sharpness", "mnat"),
    "ece": Claim("test", -1, "lower", "calibration error", "points"),
}

RULE = (
    f"Differences are F- minus plain, for joint SAM minus mean, paired over seeds. The "
    f"verdict on a metric rests on the mean over all conditions and both tasks, one "
    f"number a seed, with a {100 * CONFIDENCE:g} % interval by Student's t: met if it "
    f"lies wholly on the side that the paper names (accuracy at least that of plain, "
    f"sharpness lower, calibration error lower), opposite if wholly on the other, "
    f"else open. Beside it the single comparisons, one a condition and task: how many "
    f"lie on the paper's side (along), and how many intervals exclude 0 on it and on "
    f"the other (sure +/-); where there "
    f"is no difference, one in 40 does so on each side."
)


class Tally(NamedTuple):
    """The comparisons of two methods in one metric."""

    along: int  # means on the paper's side
    sure: int  # whose interval excludes 0
    against: int  # intervals that exclude 0 on the other side
    number: int  # of comparisons, one a condition and task
    of_seed: NDArray  # [seeds], means over all of them
    word: str  # met, opposite, open


def tally(difference: NDArray, sign: int) -> Tally:
    """Of differences `[conditions, seeds, T]`; sign is that of the claim."""
    single = np.moveaxis(difference, 1, 0)  # seeds first
    of_seed, number = single.mean(axis=(1, 2)), single[0].size
    along = int((sign * single.mean(axis=0) > _ROUNDING).sum())
    if len(single) < 2:
        return Tally(along, 0, 0, number, of_seed, "open")
    sure, against = _excluded(interval(single), sign)
    met, contradicted = _excluded(interval(of_seed), sign)
    word = "met" if met else "opposite" if contradicted else "open"
    return Tally(along, sure, against, number, of_seed, word)


def cells(found: Tally, metric: str) -> list[str]:
    """A row: counts, mean with interval, the paper's direction, the word."""
    return [
        f"{found.along} of {found.number}",
        f"{found.sure} / {found.against}",
        change(found.of_seed),
        CLAIMS[metric].paper,
        found.word,
    ]


HEAD = ["metric", "along", "sure +/-", "mean difference", "paper", "verdict"]


def sentence(method: str, other: str, found: dict[str, Tally]) -> str:
    """All metrics of one pair, counted."""
    parts = []
    for metric, counts in found.items():
        higher = "higher" if CLAIMS[metric].sign > 0 else "lower"
        parts.append(
            f"{CLAIMS[metric].title} {higher} in {counts.along} of {counts.number} "
            f"(intervals say so in {counts.sure}, the opposite in {counts.against}): "
            f"{counts.word}"
        )
    return f"{method} against {other}: {'; '.join(parts)}."


def beyond_sam(found: dict[str, dict[str, Tally]], alike: str = "f_mean") -> str:
    """What per-task flatness adds to one perturbation for all tasks.

    Args:
      found: method -> metric -> the tally of that method minus joint SAM.
      alike: the method that aggregates as joint SAM does.
    """
    if not found:
        return "Joint SAM has no F- method beside it."
    text = ""
    if alike in found:
        numbers = [
            f"{CLAIMS[metric].title} {change(own.of_seed)} {CLAIMS[metric].unit}"
            for metric, own in found[alike].items()
        ]
        text = (
            f"Does a perturbation for each task add to joint SAM? {alike}, which "
            f"aggregates alike, minus joint SAM: {', '.join(numbers)}, means over all "
            f"conditions and tasks. "
        )
    parts = []
    for metric, claim in CLAIMS.items():
        better, worse = (
            [m for m, tallies in found.items() if tallies[metric].word == word]
            for word in ("met", "opposite")
        )
        names = f"better with {', '.join(better) or 'none'}"
        parts.append(f"{claim.title} {names}, worse with {', '.join(worse) or 'none'}")
    return (
        f"{text}As far as intervals tell, against joint SAM: {'; '.join(parts)}. All "
        f"but {alike} aggregate in another way than SAM, which may be the reason."
    )


def _excluded(found: Interval, sign: int) -> tuple[int, int]:
    """How many intervals lie wholly on the side of the sign, and on the other."""
    above, below = int(np.sum(found.low > 0)), int(np.sum(found.high < 0))
    return (above, below) if sign > 0 else (below, above)
