"""Whether methods differ from the plain sum where scales are equal."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis import student
from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study.compare import Judgement
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts.paired import (
    CONFIDENCE,
    INTERVALS,
    REFERENCE,
    changes,
    interval,
)

RULE = (
    f"At scale 1, for each method and task: the mean over seeds of its test accuracy "
    f"minus that of {BASELINE} at the same seed, against twice the sd of these "
    f"differences. By chance one comparison in 90 passes it with 5 seeds, one in 5 "
    f"with 2. The single-task reference takes no part. {INTERVALS}"
)


def verdict(difference: NDArray) -> str:
    """A word on paired differences `[seeds, T]` from the baseline."""
    if len(difference) < 2:
        return "unknown"
    mean, sd, _ = mean_and_sd(difference)
    return "differs" if (np.abs(mean) > 2 * sd).any() else "no difference"


def statement(
    accuracy: dict[str, NDArray], tasks: tuple[str, ...], baseline: str = BASELINE
) -> str:
    """Whether any method differs from the plain sum where scales are equal.

    Args:
      accuracy: method -> `[seeds, T]` at scale 1, without the single-task reference.
      tasks: names of the T tasks.
      baseline: the method to compare with.
    """
    others = [method for method in accuracy if method != baseline]
    if baseline not in accuracy or not others:
        return (
            f"At equal scales no statement is possible without {baseline} and another."
        )
    seeds = len(accuracy[baseline])
    if seeds < 2:
        return "At equal scales no statement is possible from one seed: it has no sd."
    found, largest, excluding = [], 0.0, 0
    for method in others:
        difference = accuracy[method] - accuracy[baseline]
        mean, sd, _ = mean_and_sd(difference)
        largest = max(largest, np.abs(mean).max())
        found += [
            f"{method} on {task} ({mean[t]:+.2f} ± {sd[t]:.2f} points)"
            for t, task in enumerate(tasks)
            if abs(mean[t]) > 2 * sd[t]
        ]
        sure = interval(difference)
        excluding += int(((sure.low > 0) | (sure.high < 0)).sum())
    comparisons = len(others) * len(tasks)
    if found:
        text = (
            f"At equal scales these differ from {baseline} by more than 2 sd of the "
            f"paired difference: {', '.join(found)}; no other does. Chance alone would "
            f"name about {comparisons * chance(seeds):.1f} of {comparisons}"
        )
    else:
        text = f"At equal scales no method differs from {baseline} by more than 2 sd"
    by_chance = (1 - CONFIDENCE) * comparisons
    return (
        f"{text}; the largest mean difference is {largest:.2f} points. Intervals of "
        f"{100 * CONFIDENCE:g} %, paired over {seeds} seeds, exclude 0 in {excluding} "
        f"of {comparisons} comparisons; by chance in about {by_chance:.1f}."
    )


def chance(seeds: int) -> float:
    """How often normal differences of mean 0 have a mean beyond 2 of their sd."""
    return 1 - student.probability_within(2 * seeds**0.5, seeds - 1)


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Whether any method differs from the plain sum."""
    words, sentences = {}, {}
    base = outcomes.get(BASELINE)
    for method, outcome in outcomes.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif method == BASELINE or base is None:
            words[method] = "baseline" if base is not None else "unknown"
            sentences[method] = f"{method} is the {words[method]} of this comparison."
            if base is None:
                sentences[method] = f"{method} has no {BASELINE} beside it."
        else:
            difference = (outcome.score - base.score)[0]
            words[method] = verdict(difference)
            numbers = changes(difference, tasks)
            sentences[method] = (
                f"{method}, {words[method]}: {numbers} points from {BASELINE}."
            )
    return Judgement(words, sentences, statement_on(outcomes, tasks))


def statement_on(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> str:
    """`statement` on all methods but the reference, at scale 1."""
    compared = {
        method: outcome.score[0]
        for method, outcome in outcomes.items()
        if method != SINGLE_TASK
    }
    return statement(compared, tasks)
