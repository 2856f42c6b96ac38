"""Elich et al.: is Adam on the Pareto front more often than SGD with momentum?

A part is a condition (tasks, and the scale of the first loss) and an optimiser. Rates
are candidates of it: all of them take part in the front, and the tuned one is chosen on
other seeds than those reported.
"""

from functools import partial

from benchmarks.studies.optimizers.document import document
from benchmarks.studies.optimizers.fronts import RULE
from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.rules import against, judge_against

QUESTION = (
    "Elich et al. find runs with Adam on the Pareto front more often than runs with "
    "SGD and momentum, whatever the method. Two and four questions about two digits, "
    "and two with one loss times 100: which optimiser holds the front?"
)
# With two tasks UPGrad is half of PCGrad.
TWO = ("unitary", "uw", "pcgrad", "cagrad", "imtl_g")
FOUR = (*TWO, "upgrad")
# Condition -> tasks, factor on the first loss, methods
CONDITIONS = {"two": (2, 1, TWO), "four": (4, 1, FOUR), "two_x100": (2, 100, TWO)}
# As many for Adam as for SGD. Of runs on seeds from 100 the best lay inside.
RATES = {
    "adam": (1e-3, 3e-3, 1e-2, 3e-2),
    "sgd": (1e-2, 3e-2, 1e-1, 3e-1),
    "muon": (1e-2, 3e-2, 1e-1),
}
SCALED = RATES | {"sgd": (1e-3, 3e-3, 1e-2, 3e-2)}


def part(condition: str, optimizer: str) -> Part:
    """One condition and one optimiser."""
    tasks, scale, methods = CONDITIONS[condition]
    rates = (RATES if scale == 1 else SCALED)[optimizer]
    settings = Settings(
        methods,
        tuning_seeds=3,
        learning_rates=rates,
        optimizer=optimizer,
        points=50,
    )
    quick = settings._replace(
        methods=TWO[:2],
        seeds=2,
        tuning_seeds=1,
        steps=20,
        learning_rates=rates[:2],
        points=5,
        quick=True,
    )
    times = "" if scale == 1 else f", one loss times {scale}"
    return Part(
        name=f"{condition}_{optimizer}",
        title=f"{tasks} tasks{times}, {optimizer}",
        question=QUESTION,
        problem=partial(digits_problem, tasks),
        settings=settings,
        quick=quick,
        figures=(accuracy, differences),
        rules=(RULE, against()),
        judge=judge_against,
        scales=(scale,),
    )


STUDY = Study(
    name="optimizers",
    title="Adam against SGD",
    question=QUESTION,
    parts=tuple(part(x, y) for x in CONDITIONS for y in RATES),
    quick=tuple(part("two", y) for y in RATES),
    document=document,
    has_fixed_methods=True,
)
