"""What a large loss scale does to a method: dominated, over-corrects, invariant ..."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.compare import Judgement
from mtl_optax.study.methods import SINGLE_TASK
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts import null
from mtl_optax.study.verdicts.paired import POINTS, REFERENCE, loses

SCALES = (1, 1000)  # of the loss of the first task
SAME = 1e-3  # shares that differ by less are equal

RULE = (
    f"A task loses when its test accuracy at the large scale, minus that at scale 1 of "
    f"the same seed, is below -{POINTS:g} points in the mean over seeds. dominated: "
    f"the other task loses; over-corrects: the task with the scaled loss loses; fails: "
    f"both lose. Else invariant: the shares of the tasks in the first update (task "
    f"weight times loss scale, normalised) agree within {SAME:g} between the scales, "
    f"in every seed; else robust."
)


def verdict(accuracy: NDArray, first_shares: NDArray, scaled: int = 0) -> str:
    """The verdict of RULE.

    Args:
      accuracy: `[2, seeds, T]`, at scale 1 and at the large one.
      first_shares: `[2, seeds, T]`, of the first step; NaN without task weights.
      scaled: index of the task whose loss is scaled.
    """
    lost = loses(accuracy[1] - accuracy[0])
    other_loses = np.delete(lost, scaled).any()
    if lost[scaled]:
        return "fails" if other_loses else "over-corrects"
    if other_loses:
        return "dominated"
    # NaN agrees with nothing: without weights nobody can say "invariant".
    same = np.abs(first_shares[1] - first_shares[0]) <= SAME
    return "invariant" if same.all() else "robust"


def sentence(
    method: str,
    word: str,
    accuracy: NDArray,
    tasks: tuple[str, ...],
    scale: float,
    scaled: int = 0,
) -> str:
    """The verdict with the numbers that it rests on."""
    before, after = accuracy.mean(axis=1)
    falls = " and ".join(
        f"{tasks[t]} falls from {before[t]:.1f} to {after[t]:.1f}"
        for t in np.flatnonzero(loses(accuracy[1] - accuracy[0]))
    )
    holds = ", ".join(
        f"{task} {before[t]:.1f} to {after[t]:.1f}" for t, task in enumerate(tasks)
    )
    times = f"multiplied by {scale:g}"
    return {
        "dominated": f"{method} is dominated: {falls} when the loss of "
        f"{tasks[scaled]} is {times}.",
        "over-corrects": f"{method} over-corrects: {falls} when its loss is {times}.",
        "fails": f"{method} fails: {falls} when the loss of {tasks[scaled]} is "
        f"{times}.",
        "invariant": f"{method} is invariant: the first update shares out alike at "
        f"both scales, and accuracy holds ({holds}).",
        "robust": f"{method} is robust: no task loses more than {POINTS:g} points "
        f"({holds}).",
    }[word]


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """What the large scale does to each method; the null beside it."""
    words, sentences = {}, {}
    for method, outcome in outcomes.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
            continue
        accuracy = outcome.score
        words[method] = verdict(accuracy, outcome.shares[0])
        sentences[method] = sentence(method, words[method], accuracy, tasks, SCALES[1])
    return Judgement(words, sentences, null.statement_on(outcomes, tasks))
