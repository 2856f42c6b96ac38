"""Two equations; each at equal steps, at equal backward passes, and with L-BFGS.

L-BFGS has a part of its own because its line search leaves no rate to choose, and what
is shorter because a rate's schedule ends with the training.
"""

from functools import partial

from benchmarks.studies.pinn import burgers, kovasznay
from benchmarks.studies.pinn.claim import CONFIG, OTHERS, PASSES, SECOND
from benchmarks.studies.pinn.document import document
from benchmarks.studies.pinn.equation import Equation, problem
from benchmarks.studies.pinn.methods import LBFGS, MCONFIG, METHODS
from benchmarks.studies.pinn.network import Size
from benchmarks.studies.pinn.rule import RULE, judge
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.losses import losses

QUESTION = (
    "A network is to solve a differential equation: what is left of the equation, and "
    "each condition, is a loss, and their gradients conflict. Does a direction free of "
    "conflicts end nearer to the solution, and what does an optimiser of second order "
    "do about them?"
)
STEPS = 3600  # a multiple of 6 times the records
RATES: dict[str, tuple[float, ...]] = {
    "Burgers": (3e-4, 1e-3, 3e-3),
    "Kovasznay": (1e-3, 3e-3, 1e-2),
}
PUBLISHED, SMALL = Size(), Size(inside=50, hidden=2, width=8)
_SETTINGS = Settings(
    (*OTHERS, CONFIG, MCONFIG),
    seeds=8,
    tuning_seeds=2,
    steps=STEPS,
    points=100,
)
_QUICK = Settings(
    ("unitary", CONFIG, MCONFIG),
    seeds=2,
    steps=8,
    learning_rates=(1e-3,),
    points=4,
    quick=True,
)


def part(equation: Equation, end: str = "", size: Size = PUBLISHED) -> Part:
    """One equation, trained in one of three ways."""
    name, rates = equation.name.lower(), RATES[equation.name]
    methods, whole, few, rates = {
        "": (_SETTINGS.methods, STEPS, 8, rates),
        # As many backward passes as the plain sum
        PASSES: ((CONFIG,), STEPS // len(equation.tasks), 4, rates),
        # About as many passes too: a step takes two
        SECOND: ((LBFGS,), STEPS // 2, 4, (1.0,)),
    }[end]
    one = _SETTINGS._replace(methods=methods, steps=whole, learning_rates=rates)
    quick = _QUICK._replace(steps=few, methods=methods if end else _QUICK.methods)
    return Part(
        name=f"{name}_{end}" if end else name,
        title=f"{equation.name}{end and f', {end}'}",
        question=QUESTION,
        problem=partial(problem, equation, size),
        settings=one,
        quick=quick,
        figures=(losses,),
        rules=(RULE,),
        judge=judge,
        has_single_task=False,
        methods=METHODS,
        readings=("passes",) if end == SECOND else (),
    )


_WAYS = ("", PASSES, SECOND)
STUDY = Study(
    name="pinn",
    title="Physics-informed networks",
    question=QUESTION,
    parts=tuple(
        part(x, way) for x in (burgers.EQUATION, kovasznay.EQUATION) for way in _WAYS
    ),
    quick=tuple(part(burgers.EQUATION, way, SMALL) for way in _WAYS),
    document=document,
    has_fixed_methods=True,
)
