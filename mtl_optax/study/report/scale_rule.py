"""What a large loss scale does to a method: dominated, over-corrects, invariant ..."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import POINTS, REFERENCE, loses
from mtl_optax.study.report.rules import statement_against

SCALES = (1, 1000)  # of the loss of the first task
SAME = 1e-3  # shares that differ by less are equal

RULE = (
    f"A task loses when its test accuracy at the large scale, minus that at scale 1 of "
    f"the same seed, is below -{POINTS:g} points in the mean over seeds. dominated: "
    f"another task loses; over-corrects: the task with the scaled loss does; fails: it "
    f"and another do. Else invariant: the shares of the tasks in the first update "
    f"(task weight times loss scale, normalised) agree within {SAME:g} between the "
    f"scales, in every seed; else robust."
)
SENTENCES = {
    "dominated": "{method} is dominated: {falls} when the loss of {scaled} is "
    "multiplied by {scale}.",
    "over-corrects": "{method} over-corrects: {falls} when its loss is multiplied by "
    "{scale}.",
    "fails": "{method} fails: {falls} when the loss of {scaled} is multiplied by "
    "{scale}.",
    "invariant": "{method} is invariant: the first update shares out alike at both "
    "scales, and accuracy holds ({holds}).",
    "robust": "{method} is robust: no task loses more than {points:g} points "
    "({holds}).",
}


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


def sentence(method: str, word: str, accuracy: NDArray, tasks: tuple[str, ...]) -> str:
    """The verdict with the numbers that it rests on; the first task is scaled."""
    before, after = accuracy.mean(axis=1)
    lost = loses(accuracy[1] - accuracy[0])
    moves = [f"{before[t]:.1f} to {after[t]:.1f}" for t in range(len(tasks))]
    falls = [f"{tasks[t]} falls from {moves[t]}" for t in np.flatnonzero(lost)]
    return SENTENCES[word].format(
        method=method,
        falls=" and ".join(falls),
        holds=", ".join(map(" ".join, zip(tasks, moves, strict=True))),
        scaled=tasks[0],
        scale=SCALES[1],
        points=POINTS,
    )


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """What the large scale does to each method; the null beside it."""
    words, sentences = {}, {}
    for method, result in results.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
            continue
        words[method] = verdict(result.score, result.shares[0])
        sentences[method] = sentence(method, words[method], result.score, tasks)
    return Judgement(words, sentences, statement_against(results, tasks))
