"""What is measured of each method: accuracy, training loss, and the gap to validation.

All are means over tasks, one number a seed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import MethodResult, PartResult
from mtl_optax.study.report.paired import INTERVALS, interval, minus

PLAIN, REGULARISED = "plain", "regularised"
KURIN = ("mgda", "pcgrad", "imtl_g", "graddrop", "rlw")  # that the source compares
LATER = ("cagrad", "nash_mtl", "upgrad")
# The sum over T: for Adam the same, but beside it L2 weighs T times as much in the
# trunk, as it does beside every method whose weights sum to 1.
CONTROL = "mean"
METHODS = (BASELINE, CONTROL, *KURIN, *LATER)
RULE = (
    f"Each number is a mean over tasks. The training loss is that of training images "
    f"at the end, without dropout; the gap is validation loss minus training loss. "
    f"Accuracy is that on test data. The training loss of a method is given as its "
    f"ratio to that of {BASELINE} at the same seed (geometric mean; the interval is "
    f"that of the log), the gap and accuracy as differences. What a method does by "
    f"itself is asked of the runs without dropout and L2 at one rate for all, the one "
    f"that was chosen for {BASELINE}: a rate changes the training loss as well. At "
    f"the rates chosen for each they stand beside it. {INTERVALS}"
)


class Runs(NamedTuple):
    """One number a seed, `[seeds]` each."""

    accuracy: NDArray  # on test data, in percent
    train: NDArray  # loss, in nat
    gap: NDArray  # in nat


class Ratio(NamedTuple):
    """A geometric mean, and its interval."""

    mean: float
    low: float
    high: float


def runs(own: MethodResult, candidate: int) -> Runs:
    """Of one candidate of a method."""

    def of(split: str, metric: str) -> NDArray:
        values: NDArray = own.metrics[split][metric][candidate, 0]
        return values.mean(axis=-1)

    train = of("fit", "loss")
    return Runs(of("test", "accuracy"), train, minus(of("val", "loss"), train))


def tuned(result: PartResult) -> dict[str, Runs]:
    """Each method with what was chosen for it."""
    return {name: runs(own, own.chosen[0]) for name, own in result.methods.items()}


def at_one_rate(result: PartResult) -> dict[str, Runs]:
    """Each method with what was chosen for the sum."""
    chosen = result.methods[BASELINE].chosen[0]
    return {name: runs(own, chosen) for name, own in result.methods.items()}


def ratio(ours: NDArray, theirs: NDArray) -> Ratio:
    """Of positive numbers `[seeds]`, paired; NaN for an interval of one seed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(ours) - np.log(theirs)
    if len(logs) < 2:
        return Ratio(float(np.exp(logs.mean())), np.nan, np.nan)
    return Ratio(*(float(np.exp(x)) for x in interval(logs)[:3]))
