"""The study of bilevel weights: one task matters, and one of the others is noise."""

from typing import Any

import jax.numpy as jnp
import optax

import mtl_optax as mtl
from benchmarks.studies.bilevel.figure import READINGS, weights
from benchmarks.studies.bilevel.problem import NOISY, PRIMARY, WRONG, problem
from benchmarks.studies.bilevel.rule import FIRST, RULE, WITHOUT, judge
from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, alone
from mtl_optax.study.engine.transformations import bilevel, on_trunk
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.figures.losses import losses

AHEAD = 0.1  # of auto_lambda's step ahead, as LibMTL's
FACTORS = (2.0, 4.0, 8.0)  # of the fixed weight of the primary task
OUTER = (1e-4, 1e-3, 1e-2)  # rates of Adam on what is learned


def for_primary(
    num_tasks: int, **settings: Any
) -> optax.GradientTransformationExtraArgs:
    """Auto-Lambda, which serves one task."""
    primary = jnp.arange(num_tasks) == list(TASKS).index(PRIMARY)
    return mtl.auto_lambda(num_tasks, primary=primary, learning_rate=AHEAD, **settings)


def without_noisy(num_tasks: int) -> optax.GradientTransformationExtraArgs:
    """The sum of all gradients but that of the noisy task."""
    rest = jnp.arange(num_tasks) != list(TASKS).index(NOISY)
    return mtl.constant(num_tasks, weights=rest.astype(float))


def primary_first(
    num_tasks: int, factor: Any = 2.0
) -> optax.GradientTransformationExtraArgs:
    """The sum, with this weight for the primary task."""
    primary = jnp.arange(num_tasks) == list(TASKS).index(PRIMARY)
    return mtl.constant(num_tasks, weights=jnp.where(primary, factor, 1.0))


LEARNED = {
    "auto_lambda": bilevel(for_primary),
    "auto_lambda_softmax": bilevel(for_primary, variant="softmax"),
    "moml": bilevel(mtl.moml),
    "forum": bilevel(mtl.forum),
}
SETTINGS = Settings(
    ("unitary", "single_task", WITHOUT, FIRST, *LEARNED),
    tuning_seeds=3,
    learning_rates=(1e-3, 3e-3),
    points=200,
    grids={
        FIRST: {"factor": FACTORS},
        **{method: {"outer": OUTER} for method in LEARNED},
    },
)
STUDY = alone(
    Part(
        name="bilevel",
        title="Weights that a second batch decides",
        question=f"Four questions about two digits: {PRIMARY} is what matters, and of "
        f"{NOISY} {WRONG:.0%} of the training labels are wrong. Do methods that learn "
        f"weights from validation batches find that out, and does {PRIMARY} gain, "
        "against the sum and against a network of its own?",
        problem=problem,
        settings=SETTINGS,
        quick=Settings(
            ("unitary", "single_task", "auto_lambda"),
            seeds=2,
            steps=40,
            grids={"auto_lambda": {"outer": (1e-2,)}},
            quick=True,
        ),
        figures=(accuracy, weights, differences, losses),
        rules=(RULE,),
        judge=judge,
        methods={
            **LEARNED,
            WITHOUT: on_trunk(without_noisy),
            FIRST: on_trunk(primary_first),
        },
        readings=READINGS,
    )
)
