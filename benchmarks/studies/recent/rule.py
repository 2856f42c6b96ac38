"""Whether a method does better than the plain sum, or than its nearest relative."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.report.paired import (
    BETTER,
    CONFIDENCE,
    OPEN,
    UNKNOWN,
    WORSE,
    change,
    interval,
    minus,
    word,
)

WORDS = {
    BETTER: "better than the sum",
    WORSE: "worse",
    OPEN: "no difference that these seeds can show",
    UNKNOWN: "unknown: runs diverged",
}
RULE = (
    f"The verdict rests on the accuracy on test data, mean over tasks, minus that of "
    f"the plain sum (unitary) at the same scale and seed: one number a seed, with a "
    f"{100 * CONFIDENCE:g} % interval of its mean by Student's t. '{WORDS[BETTER]}' if "
    f"it lies above 0, '{WORDS[WORSE]}' if below, else '{WORDS[OPEN]}'."
)


def difference(ours: NDArray, theirs: NDArray) -> NDArray:
    """Of accuracies `[seeds, T]`, mean over tasks: `[seeds]`."""
    return np.asarray(minus(ours, theirs).mean(axis=-1))


def verdict(ours: NDArray, theirs: NDArray) -> str:
    """The words of RULE."""
    return WORDS[word(difference(ours, theirs))]


def moved(ours: NDArray, theirs: NDArray) -> str:
    """The difference with its interval."""
    return change(difference(ours, theirs))


def mean(values: NDArray) -> str:
    """Of accuracies `[seeds]`, with the interval of the mean if there is one."""
    text = f"{values.mean():.1f}"
    if len(values) < 2:
        return text
    found = interval(values)
    return f"{text} [{found.low:.1f}, {found.high:.1f}]"


def worst(scores: NDArray) -> int:
    """The task with the lowest mean over seeds, of `[seeds, T]`; one that diverged."""
    return int(np.nan_to_num(scores.mean(axis=0), nan=-np.inf).argmin())
