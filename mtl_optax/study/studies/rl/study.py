"""MT-SAC on six point masses: what is a method worth in reinforcement learning?"""

from functools import partial

from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.studies.rl.arms import ARMS, OWN
from mtl_optax.study.studies.rl.figures import conflicts, learning
from mtl_optax.study.studies.rl.problem import problem
from mtl_optax.study.studies.rl.rule import ALONE, RULE, judge
from mtl_optax.study.studies.rl.tables import any_success, cost, files, returns

SETTINGS = Settings(
    (
        *("unitary", "sum_regularised", "pcgrad", "cagrad", "cagrad_fast", "upgrad"),
        *("imtl_g", "nash_mtl", "famo", "soft_modules", ALONE),
    ),
    tuning_seeds=3,
    steps=12_000,
    learning_rates=(1e-3, 3e-3),
    schedule="constant",
    batch_size=32,
    points=40,
    grids={name: {"c": (0.4, 0.9)} for name in ("cagrad", "cagrad_fast")},
)
STUDY = alone(
    Part(
        name="rl",
        title="Multi-task reinforcement learning",
        question="Six point masses share their dynamics, but wind, weight, mirrored "
        "axes and goals set them apart, and their rewards have scales from 0.1 to 10. "
        "One soft actor-critic learns all of them. What is a method in its optimisers "
        "worth, for actor and critics, against the sum of the losses, and against "
        "networks of their own?",
        problem=problem,
        settings=SETTINGS,
        quick=SETTINGS._replace(
            methods=("unitary", "famo"),
            seeds=2,
            tuning_seeds=0,
            steps=200,
            learning_rates=(3e-3,),
            batch_size=8,
            points=4,
            grids={},
            quick=True,
        ),
        figures=(learning, accuracy, differences, conflicts),
        tables=(any_success, returns, cost),
        files=files,
        rules=(RULE,),
        judge=judge,
        has_single_task=False,
        methods=OWN,
        variants={name: partial(problem, arm) for name, arm in ARMS.items()},
    )
)
