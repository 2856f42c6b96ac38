"""How much of its accuracy a network keeps on corrupted images: joint, and single."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.corruptions.problem import at
from mtl_optax.study.data.corruptions import CORRUPTIONS, SEVERITIES
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import INTERVALS, change, changes, signs

RULE = (
    f"delta is the accuracy on corrupted images with the heads trained again, over the "
    f"accuracy on clean images before, of {SINGLE_TASK} minus that of a method at the "
    f"same seed, in percent: below 0 the method keeps more, is more robust. Mean over "
    f"{len(CORRUPTIONS)} corruptions and {len(SEVERITIES)} severities. more robust or "
    f"less robust: the interval of the mean over tasks excludes 0. {INTERVALS}"
)
MORE, LESS, OPEN, UNKNOWN = "more robust", "less robust", "not told apart", "unknown"


def kept(own: MethodResult) -> NDArray[np.float64]:
    """Share of clean accuracy in percent, `[corruptions, severities, seeds, T]`."""

    def chosen(split: str, metric: str) -> NDArray:
        return own.metrics[split][metric][own.chosen[0], 0].astype(float)

    clean = chosen("test", "accuracy")
    found = [
        [chosen(at(name, severity), "retuned") for severity in SEVERITIES]
        for name in CORRUPTIONS
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # a smoke run has 0 right
        return 100 * np.array(found) / clean[None, None]


def delta(own: MethodResult, single: MethodResult) -> NDArray[np.float64]:
    """Below 0 where the method is the more robust one; shaped as `kept`."""
    return kept(single) - kept(own)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Every method against single tasks."""
    words, sentences = {}, {}
    single = results.get(SINGLE_TASK)
    for method, own in results.items():
        if method == SINGLE_TASK:
            words[method] = "reference"
            sentences[method] = f"{method} is the reference: each task has a network."
        elif single is None:
            words[method] = UNKNOWN
            sentences[method] = f"{method} has no {SINGLE_TASK} to compare with."
        else:
            found = delta(own, single).mean(axis=(0, 1))
            words[method] = word(found.mean(axis=-1))
            sentences[method] = (
                f"{method}, {words[method]}: delta {change(found.mean(axis=-1))} % in "
                f"the mean over tasks; {changes(found, tasks, '%')}."
            )
    return Judgement(words, sentences, _statement(words))


def word(found: NDArray) -> str:
    """Of RULE, on the delta of each seed."""
    if len(found) < 2 or not np.isfinite(found).all():
        return UNKNOWN
    return {-1: MORE, 0: OPEN, 1: LESS}[int(signs(found))]


def _statement(words: dict[str, str]) -> str:
    found = [
        f"{method} {word}" for method, word in words.items() if word != "reference"
    ]
    return (
        f"Frozen features, heads trained again: {', '.join(found) or 'one arm only'}."
    )
