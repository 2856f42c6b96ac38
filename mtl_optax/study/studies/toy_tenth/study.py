"""One loss of the toy is a tenth: who still finds the Pareto set?"""

from functools import partial

import optax

import mtl_optax as mtl
from mtl_optax.study.data.toy import problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.engine.transformations import on_trunk
from mtl_optax.study.studies.toy_tenth.claim import BALANCED
from mtl_optax.study.studies.toy_tenth.report import (
    FIRST,
    STARTS,
    claim,
    end_points,
    files,
    toy_tenth,
)
from mtl_optax.study.studies.toy_tenth.rule import RULE, judge


def famo_as_there(num_tasks: int) -> optax.GradientTransformationExtraArgs:
    """FAMO with the settings of its authors' toy: losses are negative here."""
    famo = mtl.famo(num_tasks, weight_decay=0.0, min_losses=(-21 * FIRST, -21.0))
    return optax.chain(famo, optax.clip_by_global_norm(1.0))


_SETTINGS = Settings(
    methods=("mean", *BALANCED, "pcgrad", "cagrad", "famo"),
    seeds=len(STARTS),
    steps=50_000,
    learning_rates=(1e-3,),
    schedule="constant",
    points=200,
)

STUDY = alone(
    Part(
        name="toy_tenth",
        title="The toy with losses of two scales",
        question="CAGrad's toy with the first loss multiplied by a tenth, which is "
        "nothing but a unit. Which method still finds the Pareto set?",
        problem=partial(problem, STARTS, FIRST),
        settings=_SETTINGS,
        quick=_SETTINGS._replace(methods=("mean", "imtl_g"), steps=500, quick=True),
        figures=(toy_tenth,),
        tables=(claim, end_points),
        files=files,
        rules=(
            RULE,
            "famo has what its authors' toy gives it: bounds of -2.1 and -21 below the "
            "losses, no weight decay, updates clipped to norm 1. cagrad has c 0.4.",
        ),
        judge=judge,
        baseline="mean",
        has_single_task=False,
        methods={"famo": on_trunk(famo_as_there)},
    )
)
