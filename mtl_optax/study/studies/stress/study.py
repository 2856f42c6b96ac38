"""One of two losses is multiplied by 1000. A method should not care; most do."""

from functools import partial

from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.report import claims
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.figures.shares import shares
from mtl_optax.study.report.rules import against
from mtl_optax.study.report.scale_rule import RULE, SCALES, judge
from mtl_optax.study.report.summaries import summary
from mtl_optax.study.studies.stress.claim import CLAIM, measured

STUDY = alone(
    Part(
        name="stress",
        title="Loss-scale stress",
        question="Two digits overlap in each image; one network names the left and the "
        "right one. Units of a loss are arbitrary. What becomes of each method when "
        f"the loss of left is multiplied by {SCALES[1]}, and nothing else changes?",
        problem=partial(digits_problem, 2),
        settings=Settings(
            ("unitary", "pcgrad", "cagrad", "mgda", "imtl_g", "upgrad", SINGLE_TASK)
        ),
        quick=Settings(
            ("unitary", "cagrad", "mgda", "imtl_g"), seeds=2, steps=300, quick=True
        ),
        scales=SCALES,
        figures=(accuracy, differences, shares, losses),
        tables=(lambda result: claims.shown(CLAIM, measured(summary([result]))),),
        files=lambda result: claims.files(CLAIM, measured(summary([result]))),
        rules=(RULE, f"Null: {against()}"),
        judge=judge,
    )
)
