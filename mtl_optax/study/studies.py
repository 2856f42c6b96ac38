"""The studies on digits that the command line can name: three values and their judges.

stress: two tasks, and the loss of one multiplied by 1000. Units of losses are
arbitrary, so a method should not care; most do. null: the same two tasks as they are,
where no method should be better than another. transfer: four tasks, two of which suffer
from joint training. (flat, groups and toy have files of their own.)
"""

from functools import partial

from mtl_optax.study import flat, groups, priority, toy
from mtl_optax.study.compare import Judgement, Study
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.differences import differences
from mtl_optax.study.figures.losses import losses
from mtl_optax.study.figures.shares import shares
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.model import digits_problem
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.verdicts import null, paired, stress, transfer

REFERENCE = f"{SINGLE_TASK} is the reference: no task can disturb another."
SCALES = (1, 1000)


def _null(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> str:
    compared = {
        method: outcome.score[0]
        for method, outcome in outcomes.items()
        if method != SINGLE_TASK
    }
    return null.statement(compared, tasks)


def judge_stress(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """What the large scale does to each method; the null beside it."""
    words, sentences = {}, {}
    for method, outcome in outcomes.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
            continue
        accuracy = outcome.score
        words[method] = stress.verdict(accuracy, outcome.shares[0])
        sentences[method] = stress.sentence(
            method, words[method], accuracy, tasks, SCALES[1]
        )
    return Judgement(words, sentences, _null(outcomes, tasks))


def judge_null(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
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
            words[method] = null.verdict(difference)
            changes = paired.changes(difference, tasks)
            sentences[method] = (
                f"{method}, {words[method]}: {changes} points from {BASELINE}."
            )
    return Judgement(words, sentences, _null(outcomes, tasks))


def judge_transfer(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
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
            words[method] = transfer.verdict(accuracy[method] - reference)
            sentences[method] = transfer.sentence(
                method, words[method], accuracy[method], reference, tasks
            )
    statement = transfer.statement(accuracy, reference, tasks)
    return Judgement(words, sentences, statement)


def _quick(*methods: str) -> Settings:
    return Settings(methods, seeds=2, steps=300, quick=True)


_TWO_DIGITS = partial(digits_problem, 2)
_SETTINGS = Settings(
    ("unitary", "pcgrad", "cagrad", "mgda", "imtl_g", "upgrad", SINGLE_TASK)
)
_QUICK = _quick("unitary", "cagrad", "mgda", "imtl_g")

STRESS = Study(
    name="stress",
    title="Loss-scale stress",
    question="Two digits overlap in each image; one network names the left and the "
    "right one. Units of a loss are arbitrary. What becomes of each method when the "
    f"loss of left is multiplied by {SCALES[1]}, and nothing else changes?",
    problem=_TWO_DIGITS,
    settings=_SETTINGS,
    quick=_QUICK,
    scales=SCALES,
    figures=(accuracy, differences, shares, losses),
    rules=(stress.RULE, f"Null: {null.RULE}"),
    judge=judge_stress,
)

NULL = Study(
    name="null",
    title="Equal scales",
    question="Two digits overlap in each image; one network names the left and the "
    "right one. The losses have equal scales and the tasks are nearly orthogonal: "
    "there is little for a method to repair. Does any method differ from the sum?",
    problem=_TWO_DIGITS,
    settings=_SETTINGS,
    quick=_QUICK,
    figures=(accuracy, differences, shares, losses),
    rules=(null.RULE,),
    judge=judge_null,
)

TRANSFER = Study(
    name="transfer",
    title="Negative transfer",
    question="Two digits overlap in each image; one network names the left and the "
    "right one, says whether their sum is odd (parity) and whether the left one is "
    "greater. What does each task lose against a network of its own, and which method "
    "gives it back?",
    problem=partial(digits_problem, 4),
    settings=Settings(("unitary", "cagrad", "imtl_g", "pcgrad", "upgrad", SINGLE_TASK)),
    quick=_quick("unitary", "cagrad", SINGLE_TASK),
    baseline=SINGLE_TASK,
    figures=(accuracy, differences, losses),
    rules=(transfer.RULE,),
    judge=judge_transfer,
)

STUDIES: dict[str, Study | Suite] = {
    study.name: study
    for study in (
        *(STRESS, TRANSFER, toy.STUDY, NULL),
        *(flat.SUITE, groups.STUDY, priority.SUITE),
    )
}
