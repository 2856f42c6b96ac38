"""What each phase of CSO is worth against the plain sum, and who owns the channels."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.compare import Judgement
from mtl_optax.study.methods import BASELINE
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.verdicts import null, paired

EPOCHS = 6.4  # of training: 400 steps of 64 of 4000 images

RULE = (
    f"cso_phase_1 lets tasks step in turn all the time, cso_phase_2 projects all the "
    f"time, cso draws between them: phase 2 gets likelier by the epoch, from 0 to 1. A "
    f"channel belongs to the task with the largest connection strength, normalised "
    f"over the channels of its layer. Verdicts: {null.RULE}"
)


def first_tasks(outcome: Outcome) -> NDArray[np.int64]:
    """The task that is first on each channel at the end, `[seeds, layers, C]`."""
    assert outcome.path is not None  # strengths [records, scales, seeds, layers, T, C]
    return outcome.path[-1, 0].argmax(axis=-2)


def judge(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Paired with the plain sum."""
    words, sentences = {}, {}
    base = outcomes.get(BASELINE)
    for method, outcome in outcomes.items():
        owned = [(first_tasks(outcome) == t).mean() for t in range(len(tasks))]
        shares = ", ".join(
            f"{task} {100 * x:.0f} %" for task, x in zip(tasks, owned, strict=True)
        )
        words[method], changes = "", ""
        if base is not None and method != BASELINE:
            difference = (outcome.score - base.score)[0]
            words[method] = null.verdict(difference)
            changes = (
                f"{paired.changes(difference, tasks)}; mean over tasks "
                f"{paired.change(difference.mean(axis=1))} points from {BASELINE}; "
            )
        sentences[method] = f"{method}: {changes}first on channels: {shares}."
    if base is None or "cso" not in outcomes:
        return Judgement(words, sentences, f"No statement without {BASELINE} and cso.")
    difference = (outcomes["cso"].score - base.score)[0].mean(axis=1)
    statement = (
        f"Both phases together change the mean accuracy by {paired.change(difference)} "
        f"points against {BASELINE}."
    )
    return Judgement(words, sentences, statement)
