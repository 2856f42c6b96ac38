"""Which method finds its way to the minimum of the mean loss?"""

from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.studies.toy.problem import STARTS, problem
from mtl_optax.study.studies.toy.report import end_points, ends, toy
from mtl_optax.study.studies.toy.rule import RULE, judge

_SETTINGS = Settings(
    methods=("mean", "mgda", "pcgrad", "cagrad"),
    seeds=len(STARTS),
    steps=100_000,
    learning_rates=(1e-3,),
    schedule="constant",
    points=200,
)

STUDY = alone(
    Part(
        name="toy",
        title="CAGrad's toy",
        question="Two losses of two parameters: a narrow valley each above, two bowls "
        "below. Which method finds its way to the minimum of the mean loss?",
        problem=problem,
        settings=_SETTINGS,
        quick=_SETTINGS._replace(steps=5_000, quick=True),
        figures=(toy,),
        tables=(end_points,),
        files=ends,
        rules=(RULE,),
        judge=judge,
        baseline="mean",
        has_single_task=False,
    )
)
