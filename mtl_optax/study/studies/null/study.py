"""Two tasks at equal scales: does any method differ from the sum?"""

from functools import partial

from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.figures.shares import shares
from mtl_optax.study.report.rules import against, judge_against

STUDY = alone(
    Part(
        name="null",
        title="Equal scales",
        question="Two digits overlap in each image; one network names the left and the "
        "right one. The losses have equal scales and the tasks are nearly orthogonal: "
        "there is little for a method to repair. Does any method differ from the sum?",
        problem=partial(digits_problem, 2),
        settings=Settings(
            ("unitary", "pcgrad", "cagrad", "mgda", "imtl_g", "upgrad", SINGLE_TASK)
        ),
        quick=Settings(
            ("unitary", "cagrad", "mgda", "imtl_g"), seeds=2, steps=300, quick=True
        ),
        figures=(accuracy, differences, shares, losses),
        rules=(against(),),
        judge=judge_against,
    )
)
