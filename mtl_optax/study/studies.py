"""The studies on digits that the command line can name: three values and their judges.

stress: two tasks, and the loss of one multiplied by 1000. Units of losses are
arbitrary, so a method should not care; most do. null: the same two tasks as they are,
where no method should be better than another. transfer: four tasks, two of which suffer
from joint training. (The others have files of their own.)
"""

from functools import partial

from mtl_optax.study import arch, flat, groups, priority, towers, toy, vmtl
from mtl_optax.study.compare import Study
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.differences import differences
from mtl_optax.study.figures.losses import losses
from mtl_optax.study.figures.shares import shares
from mtl_optax.study.methods import SINGLE_TASK
from mtl_optax.study.model import digits_problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.verdicts import null, stress, transfer


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
    f"loss of left is multiplied by {stress.SCALES[1]}, and nothing else changes?",
    problem=_TWO_DIGITS,
    settings=_SETTINGS,
    quick=_QUICK,
    scales=stress.SCALES,
    figures=(accuracy, differences, shares, losses),
    rules=(stress.RULE, f"Null: {null.RULE}"),
    judge=stress.judge,
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
    judge=null.judge,
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
    judge=transfer.judge,
)

STUDIES: dict[str, Study | Suite] = {
    study.name: study
    for study in (
        *(STRESS, TRANSFER, toy.STUDY, NULL),
        *(flat.SUITE, groups.SUITE, priority.SUITE),
        *(arch.SUITE, towers.SUITE, vmtl.SUITE),
    )
}
