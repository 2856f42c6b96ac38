"""Which method finds its way to the minimum of the mean loss?"""

from functools import partial

import mtl_optax as mtl
from mtl_optax.study.data.toy import STARTS, problem
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.engine.transformations import at_rate, on_trunk
from mtl_optax.study.studies.toy.claim import FACTOR, FAST, LATE, RADII
from mtl_optax.study.studies.toy.report import claim, end_points, files, toy
from mtl_optax.study.studies.toy.rule import RULE, judge

OWN = {
    FAST: at_rate(METHODS["mean"], FACTOR),
    **{
        name: on_trunk(partial(mtl.cagrad, c=radius))
        for name, radius in (LATE | RADII).items()
        if name not in METHODS
    },
}
_SETTINGS = Settings(
    methods=("mean", FAST, "mgda", "pcgrad", *LATE, *RADII),
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
        quick=_SETTINGS._replace(
            methods=("mean", FAST, "cagrad"), steps=1_000, quick=True
        ),
        figures=(toy,),
        tables=(claim, end_points),
        files=files,
        rules=(
            RULE,
            f"cagrad has a radius c of {RADII['cagrad']}, the others that of their "
            f"name. {FAST} is the mean at {FACTOR} times the rate.",
        ),
        judge=judge,
        baseline="mean",
        has_single_task=False,
        methods=OWN,
    )
)
