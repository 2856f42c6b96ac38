"""The studies that the command line can name: three values and their judges.

stress: two tasks, and the loss of one multiplied by 1000. Units of losses are
arbitrary, so a method should not care; most do. null: the same two tasks as they are,
where no method should be better than another. transfer: four tasks, two of which suffer
from joint training.
"""

from mtl_optax.study import verdicts
from mtl_optax.study.compare import Judgement, Outcome, Study
from mtl_optax.study.methods import SINGLE_TASK

REFERENCE = f"{SINGLE_TASK} is the reference: no task can disturb another."
SCALES = (1, 1000)


def _null(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> str:
    compared = {
        method: outcome.accuracy["test"][0]
        for method, outcome in outcomes.items()
        if method != SINGLE_TASK
    }
    return verdicts.null_statement(compared, tasks)


def judge_stress(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """What the large scale does to each method; the null beside it."""
    words, sentences = {}, {}
    for method, outcome in outcomes.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
            continue
        accuracy = outcome.accuracy["test"]
        words[method] = verdicts.verdict(accuracy, outcome.shares[0])
        sentences[method] = verdicts.sentence(
            method, words[method], accuracy, tasks, SCALES[1]
        )
    return Judgement(words, sentences, _null(outcomes, tasks))


def judge_null(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """Whether any method differs from the plain sum."""
    words, sentences = {}, {}
    base = outcomes.get(verdicts.BASELINE)
    for method, outcome in outcomes.items():
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif method == verdicts.BASELINE or base is None:
            words[method] = "baseline" if base is not None else "unknown"
            sentences[method] = f"{method} is the {words[method]} of this comparison."
            if base is None:
                sentences[method] = f"{method} has no {verdicts.BASELINE} beside it."
        else:
            difference = (outcome.accuracy["test"] - base.accuracy["test"])[0]
            words[method] = verdicts.null_verdict(difference)
            changes = verdicts.changes(difference, tasks)
            sentences[method] = (
                f"{method}, {words[method]}: {changes} points from {verdicts.BASELINE}."
            )
    return Judgement(words, sentences, _null(outcomes, tasks))


def judge_transfer(outcomes: dict[str, Outcome], tasks: tuple[str, ...]) -> Judgement:
    """What joint training costs each task against a network of its own."""
    accuracy = {name: outcome.accuracy["test"][0] for name, outcome in outcomes.items()}
    reference = accuracy.pop(SINGLE_TASK, None)
    words, sentences = {}, {}
    for method in outcomes:
        if method == SINGLE_TASK:
            words[method], sentences[method] = "reference", REFERENCE
        elif reference is None:
            words[method] = "unknown"
            sentences[method] = f"{method} has no {SINGLE_TASK} to compare with."
        else:
            words[method] = verdicts.transfer_verdict(accuracy[method] - reference)
            sentences[method] = verdicts.transfer_sentence(
                method, words[method], accuracy[method], reference, tasks
            )
    statement = verdicts.transfer_statement(accuracy, reference, tasks)
    return Judgement(words, sentences, statement)


_METHODS = ("unitary", "pcgrad", "cagrad", "mgda", "imtl_g", "upgrad", SINGLE_TASK)
_QUICK = ("unitary", "cagrad", "mgda", "imtl_g")

STRESS = Study(
    name="stress",
    title="Loss-scale stress",
    question="Two digits overlap in each image; one network names the left and the "
    "right one. Units of a loss are arbitrary. What becomes of each method when the "
    f"loss of left is multiplied by {SCALES[1]}, and nothing else changes?",
    num_tasks=2,
    scales=SCALES,
    methods=_METHODS,
    quick_methods=_QUICK,
    figures=("accuracy", "shares", "losses"),
    rules=(verdicts.RULE, f"Null: {verdicts.NULL_RULE}"),
    judge=judge_stress,
)

NULL = Study(
    name="null",
    title="Equal scales",
    question="Two digits overlap in each image; one network names the left and the "
    "right one. The losses have equal scales and the tasks are nearly orthogonal: "
    "there is little for a method to repair. Does any method differ from the sum?",
    num_tasks=2,
    scales=(1,),
    methods=_METHODS,
    quick_methods=_QUICK,
    figures=("accuracy", "shares", "losses"),
    rules=(verdicts.NULL_RULE,),
    judge=judge_null,
)

TRANSFER = Study(
    name="transfer",
    title="Negative transfer",
    question="Two digits overlap in each image; one network names the left and the "
    "right one, says whether their sum is odd (parity) and whether the left one is "
    "greater. What does each task lose against a network of its own, and which method "
    "gives it back?",
    num_tasks=4,
    scales=(1,),
    methods=("unitary", "cagrad", "imtl_g", "pcgrad", "upgrad", SINGLE_TASK),
    quick_methods=("unitary", "cagrad", SINGLE_TASK),
    figures=("accuracy", "losses"),
    rules=(verdicts.TRANSFER_RULE,),
    judge=judge_transfer,
)

STUDIES = {study.name: study for study in (STRESS, TRANSFER, NULL)}
