"""From accuracies at two loss scales to one word and one sentence a method.

Pure functions of small arrays. Axes are always (scale, seed, task), accuracies in
percent; the runs of one seed are paired: same start, same batches.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis import student
from mtl_optax.analysis.comparison import delta_p, mean_and_sd, paired_t
from mtl_optax.study.methods import BASELINE

CONFIDENCE = 0.95
POINTS = 2.0  # a task that loses more than this has lost
SAME = 1e-3  # shares that differ by less are equal

RULE = (
    f"A task loses when its test accuracy at the large scale, minus that at scale 1 of "
    f"the same seed, is below -{POINTS:g} points in the mean over seeds. dominated: "
    f"the other task loses; over-corrects: the task with the scaled loss loses; fails: "
    f"both lose. Else invariant: the shares of the tasks in the first update (task "
    f"weight times loss scale, normalised) agree within {SAME:g} between the scales, "
    f"in every seed; else robust."
)

INTERVALS = (
    f"Intervals [low, high] are {100 * CONFIDENCE:g} % intervals of the mean paired "
    f"difference over seeds, by Student's t: exact for normal differences, also with "
    f"few seeds. One in 20 excludes 0 by chance, so among many some do."
)

NULL_RULE = (
    f"At scale 1, for each method and task: the mean over seeds of its test accuracy "
    f"minus that of {BASELINE} at the same seed, against twice the sd of these "
    f"differences. By chance one comparison in 90 passes it with 5 seeds, one in 5 "
    f"with 2. The single-task reference takes no part. {INTERVALS}"
)

TRANSFER_RULE = (
    f"A task loses when its test accuracy, minus that of a network of its own at the "
    f"same seed, is below -{POINTS:g} points in the mean over seeds; one such task "
    f"is negative transfer. The mean relative change (Δp, higher is better) is the "
    f"mean over tasks of that difference over the single-task accuracy, in percent. "
    f"{INTERVALS}"
)


def shares(task_weights: NDArray, loss_scales: NDArray) -> NDArray:
    """Share of each unscaled task gradient in the update, summing to 1."""
    effective = task_weights * loss_scales
    with np.errstate(divide="ignore", invalid="ignore"):  # no update, no shares
        return effective / effective.sum(axis=-1, keepdims=True)


def verdict(accuracy: NDArray, first_shares: NDArray, scaled: int = 0) -> str:
    """The verdict of RULE.

    Args:
      accuracy: `[2, seeds, T]`, at scale 1 and at the large one.
      first_shares: `[2, seeds, T]`, of the first step; NaN without task weights.
      scaled: index of the task whose loss is scaled.
    """
    loses = (accuracy[1] - accuracy[0]).mean(axis=0) < -POINTS
    other_loses = np.delete(loses, scaled).any()
    if loses[scaled]:
        return "fails" if other_loses else "over-corrects"
    if other_loses:
        return "dominated"
    # NaN agrees with nothing: without weights nobody can say "invariant".
    same = np.abs(first_shares[1] - first_shares[0]) <= SAME
    return "invariant" if same.all() else "robust"


def sentence(
    method: str,
    verdict: str,
    accuracy: NDArray,
    tasks: tuple[str, ...],
    scale: float,
    scaled: int = 0,
) -> str:
    """The verdict with the numbers that it rests on."""
    before, after = accuracy.mean(axis=1)
    change = (accuracy[1] - accuracy[0]).mean(axis=0)
    falls = " and ".join(
        f"{task} falls from {before[t]:.1f} to {after[t]:.1f}"
        for t, task in enumerate(tasks)
        if change[t] < -POINTS
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
    }[verdict]


def null_statement(
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
    if len(accuracy[baseline]) < 2:
        return "At equal scales no statement is possible from one seed: it has no sd."
    found, largest = [], 0.0
    for method in others:
        difference = accuracy[method] - accuracy[baseline]
        mean, sd, _ = mean_and_sd(difference)
        largest = max(largest, np.abs(mean).max())
        found += [
            f"{method} on {task} ({mean[t]:+.2f} ± {sd[t]:.2f} points)"
            for t, task in enumerate(tasks)
            if abs(mean[t]) > 2 * sd[t]
        ]
    comparisons = len(others) * len(tasks)
    seeds = len(accuracy[baseline])
    if found:
        text = (
            f"At equal scales these differ from {baseline} by more than 2 sd of the "
            f"paired difference: {', '.join(found)}; no other does. Chance alone would "
            f"name about {comparisons * chance(seeds):.1f} of {comparisons}"
        )
    else:
        text = f"At equal scales no method differs from {baseline} by more than 2 sd"
    excluding = sum(
        int(_excludes_zero(accuracy[method] - accuracy[baseline]).sum())
        for method in others
    )
    by_chance = (1 - CONFIDENCE) * comparisons
    return (
        f"{text}; the largest mean difference is {largest:.2f} points. Intervals of "
        f"{100 * CONFIDENCE:g} %, paired over {seeds} seeds, exclude 0 in {excluding} "
        f"of {comparisons} comparisons; by chance in about {by_chance:.1f}."
    )


def _excludes_zero(difference: NDArray) -> NDArray:
    """`[T]`, of paired differences `[seeds, T]`."""
    interval = paired_t(difference, np.zeros_like(difference), CONFIDENCE)
    return (interval.low > 0) | (interval.high < 0)


def null_verdict(difference: NDArray) -> str:
    """A word on paired differences `[seeds, T]` from the baseline."""
    if len(difference) < 2:
        return "unknown"
    mean, sd, _ = mean_and_sd(difference)
    return "differs" if (np.abs(mean) > 2 * sd).any() else "no difference"


def changes(difference: NDArray, tasks: tuple[str, ...]) -> str:
    """Paired differences `[seeds, T]` as "left +0.10 [-0.05, +0.25], right ..."."""
    return ", ".join(
        f"{task} {change(difference[:, t])}" for t, task in enumerate(tasks)
    )


def change(difference: NDArray) -> str:
    """The mean of paired differences `[seeds]`, and its interval if there is one."""
    mean = f"{difference.mean():+.2f}"
    if len(difference) < 2:
        return mean
    interval = paired_t(difference, np.zeros_like(difference), CONFIDENCE)
    return f"{mean} {bracket(interval.low, interval.high)}"


def bracket(low: Any, high: Any) -> str:
    """An interval; fewer digits where it lies far away."""
    digits = 2 if max(abs(low), abs(high)) < 10 else 1
    return f"[{low:+.{digits}f}, {high:+.{digits}f}]"


def transfer_verdict(difference: NDArray) -> str:
    """The verdict of TRANSFER_RULE on paired differences `[seeds, T]`."""
    loses = difference.mean(axis=0) < -POINTS
    return "negative transfer" if loses.any() else "no loss"


def transfer_sentence(
    method: str,
    verdict: str,
    accuracy: NDArray,
    reference: NDArray,
    tasks: tuple[str, ...],
) -> str:
    """The verdict with its numbers; accuracies `[seeds, T]`."""
    # Each seed against single-task training of the same seed.
    relative = np.array(
        [
            delta_p(_by_task(ours, tasks), _by_task(base, tasks), _by_task(True, tasks))
            for ours, base in zip(accuracy, reference, strict=True)
        ]
    )
    return (
        f"{method}, {verdict}: {changes(accuracy - reference, tasks)} points from "
        f"single-task training; Δp {change(relative)} % (higher is better)."
    )


def _by_task(values: Any, tasks: tuple[str, ...]) -> dict[str, Any]:
    """One metric a task, as delta_p takes them."""
    values = np.broadcast_to(values, len(tasks))
    return {task: values[t : t + 1] for t, task in enumerate(tasks)}


def transfer_statement(
    accuracy: dict[str, NDArray], reference: NDArray | None, tasks: tuple[str, ...]
) -> str:
    """What the plain sum costs, and who gives it back; accuracies `[seeds, T]`."""
    if reference is None or BASELINE not in accuracy:
        return f"No statement is possible without {BASELINE} and single_task."
    difference = accuracy[BASELINE] - reference
    lost = [t for t in range(len(tasks)) if difference.mean(axis=0)[t] < -POINTS]
    if not lost:
        return (
            f"No negative transfer: under {BASELINE} no task loses more than "
            f"{POINTS:g} points against single-task training."
        )
    numbers = changes(difference[:, lost], tuple(tasks[t] for t in lost))
    text = (
        f"Negative transfer: joint training with {BASELINE} changes {numbers} points "
        f"against single-task training, paired over {len(reference)} seed(s)."
    )
    others = [method for method in accuracy if method != BASELINE]
    cured = [
        m for m in others if transfer_verdict(accuracy[m] - reference) == "no loss"
    ]
    if cured:
        return f"{text} No task loses with {', '.join(cured)}."
    return f"{text} None of {', '.join(others)} removes it." if others else text


def chance(seeds: int) -> float:
    """How often normal differences of mean 0 have a mean beyond 2 of their sd."""
    return 1 - student.probability_within(2 * seeds**0.5, seeds - 1)
