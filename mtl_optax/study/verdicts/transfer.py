"""What joint training costs each task against a network of its own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import delta_p
from mtl_optax.study.compare import Judgement
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts.paired import (
    INTERVALS,
    POINTS,
    REFERENCE,
    change,
    changes,
    loses,
)

RULE = (
    f"A task loses when its test accuracy, minus that of a network of its own at the "
    f"same seed, is below -{POINTS:g} points in the mean over seeds; one such task "
    f"is negative transfer. The mean relative change (Δp, higher is better) is the "
    f"mean over tasks of that difference over the single-task accuracy, in percent. "
    f"{INTERVALS}"
)


def verdict(difference: NDArray) -> str:
    """The verdict of RULE on paired differences `[seeds, T]`."""
    return "negative transfer" if loses(difference).any() else "no loss"


def sentence(
    method: str,
    word: str,
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
        f"{method}, {word}: {changes(accuracy - reference, tasks)} points from "
        f"single-task training; Δp {change(relative)} % (higher is better)."
    )


def _by_task(values: Any, tasks: tuple[str, ...]) -> dict[str, Any]:
    """One metric a task, as delta_p takes them."""
    values = np.broadcast_to(values, len(tasks))
    return {task: values[t : t + 1] for t, task in enumerate(tasks)}


def statement(
    accuracy: dict[str, NDArray], reference: NDArray | None, tasks: tuple[str, ...]
) -> str:
    """What the plain sum costs, and who gives it back; accuracies `[seeds, T]`."""
    if reference is None or BASELINE not in accuracy:
        return f"No statement is possible without {BASELINE} and single_task."
    difference = accuracy[BASELINE] - reference
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
    others = [method for method in accuracy if method != BASELINE]
    cured = [m for m in others if verdict(accuracy[m] - reference) == "no loss"]
    if cured:
        return f"{text} No task loses with {', '.join(cured)}."
    return f"{text} None of {', '.join(others)} removes it." if others else text


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """What joint training costs each task against a network of its own."""
    accuracy = {name: outcome.score[0] for name, outcome in outcomes.items()}
    reference = accuracy.pop(SINGLE_TASK, None)
    words, sentences = {}, {}
    for method in outcomes:
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif reference is None:
            words[method] = "unknown"
            sentences[method] = f"{method} has no {SINGLE_TASK} to compare with."
        else:
            words[method] = verdict(accuracy[method] - reference)
            sentences[method] = sentence(
                method, words[method], accuracy[method], reference, tasks
            )
    return Judgement(words, sentences, statement(accuracy, reference, tasks))
