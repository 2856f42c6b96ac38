"""Does training depend on the scale of a loss? Adam, one Adam a task, plain steps."""

from typing import Any

from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.report import claims
from mtl_optax.study.studies.adam_scale import report
from mtl_optax.study.studies.adam_scale.arms import ARMS, RATES
from mtl_optax.study.studies.adam_scale.claim import CLAIM, measured
from mtl_optax.study.studies.adam_scale.problem import problem
from mtl_optax.study.studies.adam_scale.rule import RULE, SCALES, judge


def claimed(result: Any) -> Any:
    """The claim and its verdict."""
    return claims.shown(CLAIM, measured(result))


_SETTINGS = Settings(
    methods=tuple(ARMS),
    seeds=10,
    steps=600,
    learning_rates=(RATES["adam"],),
    schedule="constant",
    points=60,
)

STUDY = alone(
    Part(
        name="adam_scale",
        title="Adam and the scale of a loss",
        question="Two curves are fitted by one small network; the loss of the first is "
        "multiplied by 10, 0.1 and 0.01. Do the heads go the same way, and the trunk?",
        problem=problem,
        settings=_SETTINGS,
        quick=_SETTINGS._replace(
            methods=("adam", "adam_frozen", "adam_per_task"),
            seeds=2,
            steps=20,
            quick=True,
        ),
        figures=(report.departure,),
        tables=(claimed, report.table),
        files=lambda result: {
            **report.files(result),
            **claims.files(CLAIM, measured(result)),
        },
        rules=(RULE,),
        judge=judge,
        scales=SCALES,
        baseline="adam",
        has_single_task=False,
        methods=ARMS,
    )
)
