"""The study of small towers: width of the tasks' towers, with and without auxiliaries.

A part is a condition of the data and a width: another program each. gamma, and in the
part "front" the weights of the tasks, are lanes of one program.
"""

from functools import partial

from mtl_optax.study import towers_report
from mtl_optax.study.compare import Study
from mtl_optax.study.figures.differences import differences
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.towers_problem import CONDITIONS, problem
from mtl_optax.study.towers_tables import FRONT
from mtl_optax.study.verdicts.towers import (
    AUXILIARY,
    FIXED,
    FRONT_RULE,
    GAMMAS,
    PLAIN,
    RULE,
    WEIGHTS,
    judge,
)

WIDTHS = (0, 16, 64, 256, 1024)
QUESTION = (
    "Two digits overlap in each image; the tower of each task reads what one trunk "
    "says. The paper on small towers (Wang et al.) says that large towers generalise "
    "worse, and that a small tower beside each, on the same labels and gone at "
    "inference, mends it and moves the Pareto front. Does it?"
)
_SETTINGS = Settings(
    (PLAIN, AUXILIARY),
    tuning_seeds=3,
    steps=600,
    points=20,
    grids={AUXILIARY: {"gamma": GAMMAS}},
)
_QUICK = Settings(
    (PLAIN, AUXILIARY),
    seeds=2,
    steps=60,
    points=10,
    grids={AUXILIARY: {"gamma": (0.3, 1.0)}},
    quick=True,
)


def part(condition: str, width: int) -> Study:
    """One condition and one width."""
    return Study(
        name=f"{condition}_{width}",
        title=f"Small towers: {condition}, width {width}",
        question=QUESTION,
        problem=partial(problem, condition, width),
        settings=_SETTINGS,
        quick=_QUICK,
        figures=(differences,),
        rules=(RULE,),
        judge=judge,
        baseline=PLAIN,
        has_single_task=False,
        extra=(AUXILIARY,),
    )


def front(condition: str, width: int) -> Study:
    """Weights of the two tasks, with and without auxiliary towers."""
    weights = {"later": WEIGHTS}
    settings = _SETTINGS._replace(
        methods=(FIXED, AUXILIARY),
        tuning_seeds=0,
        grids={FIXED: weights, AUXILIARY: {"gamma": GAMMAS, **weights}},
    )
    few = {"later": WEIGHTS[::3]}
    quick = _QUICK._replace(
        methods=settings.methods,
        grids={FIXED: few, AUXILIARY: {"gamma": (0.3, 1.0), **few}},
    )
    return part(condition, width)._replace(
        name=FRONT,
        title=f"Small towers: the front of two tasks, {condition}, width {width}",
        settings=settings,
        quick=quick,
        rules=(RULE, FRONT_RULE),
        baseline=FIXED,
    )


SUITE = Suite(
    name="towers",
    title="Small towers",
    question=QUESTION,
    parts=(*(part(c, w) for c in CONDITIONS for w in WIDTHS), front("few", WIDTHS[-1])),
    quick=(part("few", 16), part("few", 256), front("few", 64)),
    write=towers_report.write,
    show=towers_report.show,
    has_fixed_methods=True,
)
