"""Two judges that several studies share: against a baseline, against single tasks."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import delta_p
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import (
    CONFIDENCE,
    INTERVALS,
    POINTS,
    REFERENCE,
    UNKNOWN,
    change,
    changes,
    loses,
    signs,
    word_of_tasks,
)

Results = dict[str, MethodResult]


def against(baseline: str = BASELINE) -> str:
    """The rule of `judge_against`."""
    return (
        f"At scale 1, for each method and task: the first metric on the reported "
        f"split, minus that of {baseline} at the same seed. {INTERVALS} The "
        f"single-task reference takes no part."
    )


def judge_against(
    results: Results, tasks: tuple[str, ...], baseline: str = BASELINE
) -> Judgement:
    """Whether any method differs from the baseline."""
    words, sentences = {}, {}
    base = results.get(baseline)
    for method, result in results.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif base is None:
            words[method] = UNKNOWN
            sentences[method] = f"{method} has no {baseline} beside it."
        elif method == baseline:
            words[method] = "baseline"
            sentences[method] = f"{method} is the baseline of this comparison."
        else:
            difference = (result.score - base.score)[0]
            words[method] = word_of_tasks(difference)
            numbers = changes(difference, tasks)
            sentences[method] = (
                f"{method}, {words[method]}: {numbers} points from {baseline}."
            )
    return Judgement(words, sentences, statement_against(results, tasks, baseline))


def statement_against(
    results: Results, tasks: tuple[str, ...], baseline: str = BASELINE
) -> str:
    """In how many comparisons at scale 1 the intervals exclude 0, and where."""
    others = [x for x in results if x not in (baseline, SINGLE_TASK)]
    if baseline not in results or not others:
        return (
            f"At equal scales no statement is possible without {baseline} and another."
        )
    base = results[baseline].score[0]
    if len(base) < 2:
        return "At equal scales no statement is possible from one seed: it has no sd."
    apart = {method: results[method].score[0] - base for method in others}
    found = [
        f"{method} on {tasks[t]} ({change(difference[:, t])} points)"
        for method, difference in apart.items()
        for t in np.flatnonzero(signs(difference))
    ]
    number = len(others) * len(tasks)
    largest = max(np.abs(x.mean(axis=0)).max() for x in apart.values())
    return (
        f"At equal scales {100 * CONFIDENCE:g} % intervals, paired over {len(base)} "
        f"seeds, exclude 0 in {len(found)} of {number} comparisons with {baseline}, by "
        f"chance in about {(1 - CONFIDENCE) * number:.1f}: "
        f"{', '.join(found) or 'none'}. The largest mean difference is {largest:.2f} "
        f"points."
    )


TRANSFER = (
    f"A task loses when its test accuracy, minus that of a network of its own at the "
    f"same seed, is below -{POINTS:g} points in the mean over seeds; one such task "
    f"is negative transfer. The mean relative change (Δp, higher is better) is the "
    f"mean over tasks of that difference over the single-task accuracy, in percent. "
    f"{INTERVALS}"
)
NEGATIVE, NO_LOSS = "negative transfer", "no loss"


def judge_transfer(results: Results, tasks: tuple[str, ...]) -> Judgement:
    """What joint training costs each task against a network of its own."""
    score = {name: result.score[0] for name, result in results.items()}
    reference = score.pop(SINGLE_TASK, None)
    words, sentences = {}, {}
    for method in results:
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif reference is None:
            words[method] = UNKNOWN
            sentences[method] = f"{method} has no {SINGLE_TASK} to compare with."
        else:
            difference = score[method] - reference
            words[method] = transfer(difference)
            sentences[method] = (
                f"{method}, {words[method]}: {changes(difference, tasks)} points from "
                f"single-task training; Δp "
                f"{change(_delta_p(score[method], reference, tasks))} % (higher is "
                f"better)."
            )
    return Judgement(words, sentences, _statement(score, reference, tasks))


def transfer(difference: NDArray) -> str:
    """The word of TRANSFER on paired differences `[seeds, T]`."""
    return NEGATIVE if loses(difference).any() else NO_LOSS


def _delta_p(score: NDArray, reference: NDArray, tasks: tuple[str, ...]) -> NDArray:
    """Each seed against single-task training of the same seed, `[seeds]`."""

    def by_task(values: NDArray) -> dict[str, NDArray]:
        return {task: values[t : t + 1] for t, task in enumerate(tasks)}

    higher = by_task(np.ones(len(tasks), bool))
    pairs = zip(map(by_task, score), map(by_task, reference), strict=True)
    return np.array([delta_p(ours, base, higher) for ours, base in pairs])


def _statement(
    score: dict[str, NDArray], reference: NDArray | None, tasks: tuple[str, ...]
) -> str:
    """What the plain sum costs, and who gives it back; scores `[seeds, T]`."""
    if reference is None or BASELINE not in score:
        return f"No statement is possible without {BASELINE} and {SINGLE_TASK}."
    difference = score[BASELINE] - reference
    lost = np.flatnonzero(loses(difference))
    if not lost.size:
        return (
            f"No negative transfer: under {BASELINE} no task loses more than "
            f"{POINTS:g} points against single-task training."
        )
    numbers = changes(difference[:, lost], tuple(tasks[t] for t in lost))
    text = (
        f"Negative transfer: joint training with {BASELINE} changes {numbers} points "
        f"against single-task training, paired over {len(reference)} seed(s)."
    )
    others = [method for method in score if method != BASELINE]
    cured = [m for m in others if transfer(score[m] - reference) == NO_LOSS]
    if cured:
        return f"{text} No task loses with {', '.join(cured)}."
    return f"{text} None of {', '.join(others)} removes it." if others else text
