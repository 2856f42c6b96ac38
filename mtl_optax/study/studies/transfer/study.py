"""Four tasks, two of which suffer from joint training; who gives it back?"""

from functools import partial

from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.rules import TRANSFER, judge_transfer

STUDY = alone(
    Part(
        name="transfer",
        title="Negative transfer",
        question="Two digits overlap in each image; one network names the left and the "
        "right one, says whether their sum is odd (parity) and whether the left one is "
        "greater. What does each task lose against a network of its own, and which "
        "method gives it back?",
        problem=partial(digits_problem, 4),
        settings=Settings(
            ("unitary", "cagrad", "imtl_g", "pcgrad", "upgrad", SINGLE_TASK)
        ),
        quick=Settings(
            ("unitary", "cagrad", SINGLE_TASK), seeds=2, steps=300, quick=True
        ),
        baseline=SINGLE_TASK,
        figures=(accuracy, differences, losses),
        rules=(TRANSFER,),
        judge=judge_transfer,
    )
)
