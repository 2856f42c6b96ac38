"""The study of small towers: width of the tasks' towers, with and without auxiliaries.

A part is a condition of the data and a width: another program each. gamma, and in the
part "front" the weights of the tasks, are lanes of one program.
"""

from functools import partial

from benchmarks.studies.towers import rule
from benchmarks.studies.towers.problem import CONDITIONS, problem
from benchmarks.studies.towers.report import document
from benchmarks.studies.towers.rule import AUXILIARY, FIXED, PLAIN
from benchmarks.studies.towers.runs import FRONT
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.differences import differences

WIDTHS = (0, 16, 64, 256, 1024)
QUESTION = (
    "Two digits overlap in each image; the tower of each task reads what one trunk "
    "says. The paper on small towers (Wang et al.) says that large towers generalise "
    "worse, and that a small tower beside each, on the same labels and gone at "
    "inference, mends it and moves the Pareto front. Does it?"
)
# Of the right task, where the left one has 1
RIGHT_WEIGHTS = tuple((1 - x) / x for x in rule.LEFT_WEIGHTS)
_SETTINGS = Settings(
    (PLAIN, AUXILIARY),
    tuning_seeds=3,
    steps=600,
    points=20,
    grids={AUXILIARY: {"gamma": rule.GAMMAS}},
)
_QUICK = Settings(
    (PLAIN, AUXILIARY),
    seeds=2,
    steps=60,
    points=10,
    grids={AUXILIARY: {"gamma": (0.3, 1.0)}},
    quick=True,
)


def part(condition: str, width: int) -> Part:
    """One condition and one width."""
    return Part(
        name=f"{condition}_{width}",
        title=f"Small towers: {condition}, width {width}",
        question=QUESTION,
        problem=partial(problem, condition, width),
        settings=_SETTINGS,
        quick=_QUICK,
        figures=(differences,),
        rules=(rule.RULE,),
        judge=rule.judge,
        baseline=PLAIN,
        has_single_task=False,
        # The sum again: gamma, a setting of its own, goes to the losses.
        methods={AUXILIARY: METHODS[FIXED]},
    )


def front(condition: str, width: int) -> Part:
    """Weights of the two tasks, with and without auxiliary towers."""
    weights = {"later": RIGHT_WEIGHTS}
    settings = _SETTINGS._replace(
        methods=(FIXED, AUXILIARY),
        tuning_seeds=0,
        grids={FIXED: weights, AUXILIARY: {"gamma": rule.GAMMAS, **weights}},
    )
    few = {"later": RIGHT_WEIGHTS[::3]}
    quick = _QUICK._replace(
        methods=settings.methods,
        grids={FIXED: few, AUXILIARY: {"gamma": (0.3, 1.0), **few}},
    )
    return part(condition, width)._replace(
        name=FRONT,
        title=f"Small towers: the front of two tasks, {condition}, width {width}",
        settings=settings,
        quick=quick,
        rules=(rule.RULE, rule.FRONT_RULE),
        baseline=FIXED,
    )


STUDY = Study(
    name="towers",
    title="Small towers",
    question=QUESTION,
    parts=(*(part(c, w) for c in CONDITIONS for w in WIDTHS), front("few", WIDTHS[-1])),
    quick=(part("few", 16), part("few", 256), front("few", 64)),
    document=document,
    has_fixed_methods=True,
)
