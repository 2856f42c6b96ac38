"""The study of corrupted images: frozen features of joint and of single networks."""

from functools import partial
from typing import Any

from benchmarks.studies.corruptions import report
from benchmarks.studies.corruptions.arms import ARMS
from benchmarks.studies.corruptions.claim import CLAIM, measured
from benchmarks.studies.corruptions.problem import problem
from benchmarks.studies.corruptions.rule import RULE, judge
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study, alone
from mtl_optax.study.report import claims

_SETTINGS = Settings(
    (BASELINE, SINGLE_TASK),
    seeds=7,
    tuning_seeds=3,
    steps=2000,
    learning_rates=(3e-4, 1e-3, 3e-3, 1e-2),
    schedule="constant",  # the problem has a cosine for each half
    points=100,
)


def claimed(result: Any) -> Any:
    """The claim and its verdict."""
    found = measured(result)
    return claims.shown(CLAIM, found) if found else None


def part(**smaller: int) -> Part:
    """With all test and training images, or fewer of them."""
    return Part(
        name="corruptions",
        title="Transfer to corrupted images",
        question="Four questions about two digits. Joint and single networks learn on "
        "clean images; then their trunks stand still and the heads learn on corrupted "
        "ones. Which features keep more of their accuracy?",
        problem=partial(problem, **smaller),
        settings=_SETTINGS,
        quick=_SETTINGS._replace(
            seeds=2, tuning_seeds=0, steps=20, learning_rates=(3e-3,), quick=True
        ),
        figures=(report.transfer,),
        tables=(claimed, report.by_family, report.accuracy_by_family),
        files=lambda result: {
            **report.files(result),
            **(claims.files(CLAIM, measured(result)) if measured(result) else {}),
        },
        rules=(RULE,),
        judge=judge,
        baseline=SINGLE_TASK,
        methods=ARMS,
    )


_FEW = {"num_test": 60, "num_train": 200}
STUDY: Study = alone(part())._replace(quick=(part(**_FEW),))
