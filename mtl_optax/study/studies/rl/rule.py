"""What a method is worth in reinforcement learning: success against the plain sum."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import (
    BETTER,
    OPEN,
    UNKNOWN,
    WORSE,
    change,
    changes,
    minus,
    signs,
    word,
)
from mtl_optax.study.report.paired import RULE as PAIRED

ALONE = "independent"
RULE = (
    f"Success at the last step, mean over tasks, minus that of {BASELINE} at the same "
    f"seed. {PAIRED} Tasks are named where their own interval excludes 0. {ALONE} "
    "is no method: it has a network for each task, and so more parameters."
)
SUM = "{arm}: {mean:.1f} % of episodes succeed, mean over tasks."
AGAINST = "{arm}, {word}: {mean:.1f} %, {change} points from {other}{tasks}."
NO_SUM = f"{{arm}}: {{mean:.1f}} %; there is no {BASELINE} beside it."


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Each arm against the sum, and a sentence on all."""
    mean = {arm: result.score[0].mean(axis=-1) for arm, result in results.items()}
    words, sentences = {}, {}
    for arm, result in results.items():
        told = {"arm": arm, "mean": mean[arm].mean()}
        if BASELINE not in results:
            words[arm], sentences[arm] = UNKNOWN, NO_SUM.format(**told)
        elif arm == BASELINE:
            words[arm], sentences[arm] = "baseline", SUM.format(**told)
        else:
            difference = minus(mean[arm], mean[BASELINE])
            words[arm] = word(difference)
            apart = minus(result.score[0], results[BASELINE].score[0])
            sentences[arm] = AGAINST.format(
                **{**told, "word": words[arm], "change": change(difference)},
                **{"other": BASELINE, "tasks": _by_task(apart, tasks)},
            )
    return Judgement(words, sentences, statement(words))


def _by_task(difference: NDArray, tasks: tuple[str, ...]) -> str:
    """The tasks that are told apart, `[seeds, T]`."""
    found = np.flatnonzero(signs(difference))
    if not found.size:
        return ""
    return f" ({changes(difference[:, found], tuple(tasks[t] for t in found))})"


def statement(words: dict[str, str]) -> str:
    """Who is better than the sum, who worse."""
    others = [arm for arm in words if arm not in (BASELINE, ALONE)]
    if BASELINE not in words or not others:
        return f"No statement is possible without {BASELINE} and another arm."
    if all(words[arm] == UNKNOWN for arm in others):
        return "No statement is possible: with one seed, or where runs diverged."
    said = {
        name: ", ".join(arm for arm in others if words[arm] == name) or "none"
        for name in (BETTER, WORSE, OPEN)
    }
    text = "; ".join(f"{name}: {arms}" for name, arms in said.items())
    alone = f" {ALONE} networks are {words[ALONE]}." if ALONE in words else ""
    return f"Against {BASELINE}, in success: {text}.{alone}"
