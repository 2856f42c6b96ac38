"""Two judges that several studies share: against a baseline, against single tasks."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import delta_p
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import (
    BETTER,
    CONFIDENCE,
    INTERVALS,
    OPEN,
    POINTS,
    REFERENCE,
    UNKNOWN,
    WORSE,
    change,
    changes,
    loses,
    minus,
    signs,
    word_of_tasks,
)

Results = dict[str, MethodResult]


def against(baseline: str = BASELINE) -> str:
    """The rule of `judge_against`."""
    return (
        f"At scale 1, for each method and task: the first metric on the reported "
        f"split, minus that of {baseline} at the same seed. A method is {BETTER} or "
        f"{WORSE} where the interval of some task excludes 0, both if tasks disagree, "
        f"else {OPEN}. {INTERVALS} The single-task reference takes no part."
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
            difference, metric = minus(result.score[0], base.score[0]), result.metric
            words[method] = word_of_tasks(difference, metric.higher_is_better)
            numbers = changes(difference, tasks, metric.points)
            sentences[method] = f"{method}, {words[method]}: {numbers} from {baseline}."
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
    base = results[baseline]
    seeds = base.score.shape[1]
    if seeds < 2:
        return "At equal scales no statement is possible from one seed: it has no sd."
    apart = {
        method: minus(results[method].score[0], base.score[0]) for method in others
    }
    unit = f" {base.metric.points}".rstrip()
    found = [
        f"{method} on {tasks[t]} ({change(difference[:, t])}{unit})"
        for method, difference in apart.items()
        for t in np.flatnonzero(signs(difference))
    ]
    means = np.abs([x.mean(axis=0) for x in apart.values()])
    text = (
        f"At equal scales {100 * CONFIDENCE:g} % intervals, paired over {seeds} "
        f"seeds, exclude 0 in {len(found)} of {means.size} comparisons with "
        f"{baseline}, by chance in about {(1 - CONFIDENCE) * means.size:.1f}: "
        f"{', '.join(found) or 'none'}."
    )
    finite = means[np.isfinite(means)]
    if finite.size < means.size:
        text += f" {means.size - finite.size} have no number: runs diverged."
    if finite.size:
        text += f" The largest mean difference is {finite.max():.2f}{unit}."
    return text


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
    reference = results.get(SINGLE_TASK)
    words, sentences = {}, {}
    for method, result in results.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif reference is None:
            words[method] = UNKNOWN
            sentences[method] = f"{method} has no {SINGLE_TASK} to compare with."
        else:
            words[method] = transfer(result, reference)
            numbers = changes(
                minus(result.score[0], reference.score[0]), tasks, result.metric.points
            )
            relative = _delta_p(result, reference, tasks)
            sentences[method] = (
                f"{method}, {words[method]}: {numbers} from single-task training; Δp "
                f"{change(relative)} % (higher is better)."
            )
    return Judgement(words, sentences, _statement(results, tasks))


def transfer(result: MethodResult, reference: MethodResult) -> str:
    """The word of TRANSFER."""
    if not np.isfinite(reference.score[0]).all():
        return UNKNOWN
    return NEGATIVE if _lost(result, reference).any() else NO_LOSS


def _lost(result: MethodResult, reference: MethodResult) -> NDArray[np.bool_]:
    return loses(
        minus(result.score[0], reference.score[0]), result.metric.higher_is_better
    )


def _delta_p(
    result: MethodResult, reference: MethodResult, tasks: tuple[str, ...]
) -> NDArray:
    """Each seed against single-task training of the same seed, `[seeds]`.

    NaN where that is not above 0: there is no relative change.
    """

    def by_task(values: NDArray) -> dict[str, NDArray]:
        return {task: values[t : t + 1] for t, task in enumerate(tasks)}

    higher = by_task(np.full(len(tasks), result.metric.higher_is_better))
    return np.array(
        [
            delta_p(by_task(ours), by_task(base), higher)
            if (base > 0).all()
            else np.nan
            for ours, base in zip(result.score[0], reference.score[0], strict=True)
        ]
    )


def _statement(results: Results, tasks: tuple[str, ...]) -> str:
    """What the plain sum costs, and who gives it back."""
    reference, base = (results.get(x) for x in (SINGLE_TASK, BASELINE))
    if reference is None or base is None:
        return f"No statement is possible without {BASELINE} and {SINGLE_TASK}."
    if transfer(base, reference) == UNKNOWN:
        return f"No statement is possible: runs of {SINGLE_TASK} diverged."
    unit = base.metric.points
    lost = np.flatnonzero(_lost(base, reference))
    if not lost.size:
        return (
            f"No negative transfer: under {BASELINE} no task loses more than "
            f"{f'{POINTS:g} {unit}'.rstrip()} against single-task training."
        )
    own = tuple(tasks[t] for t in lost)
    numbers = changes(minus(base.score[0], reference.score[0])[:, lost], own, unit)
    text = (
        f"Negative transfer: joint training with {BASELINE} changes {numbers} "
        f"against single-task training, paired over {base.score.shape[1]} seed(s)."
    )
    others = [method for method in results if method not in (BASELINE, SINGLE_TASK)]
    cured = [m for m in others if transfer(results[m], reference) == NO_LOSS]
    if cured:
        return f"{text} No task loses with {', '.join(cured)}."
    return f"{text} None of {', '.join(others)} removes it." if others else text
