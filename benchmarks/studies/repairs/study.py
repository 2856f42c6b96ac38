"""The study of repairs: rate, steps, width, weights, groups, regularisation, methods.

Every arm has the same grid of rates, as have the single tasks beside it; it is shown at
the rate of `mtl-optax study transfer`, where two tasks lose, and at its best.
"""

from functools import partial

from benchmarks.studies.repairs.arms import (
    ARMS,
    DAMAGED,
    DROPPED,
    IN_USUAL,
    LONGER,
    OWN,
    STEPS,
    USUAL,
    WIDER,
    problem,
)
from benchmarks.studies.repairs.document import document
from benchmarks.studies.repairs.rule import FIXED, RULE
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.rules import TRANSFER, judge_transfer

QUESTION = (
    f"Two digits overlap in each image; of four questions about them {DAMAGED[0]} of "
    f"the sum and which digit is {DAMAGED[1]} lose points in one network, trained as "
    "usual, against a network each. What gives them back, and at what cost: another "
    "rate, more steps, a wider trunk, weights, two networks, regularisation, or a "
    "method that looks at the gradients of the tasks?"
)
BOTH = (BASELINE, SINGLE_TASK)
RATES = (1e-3, FIXED, 1e-2, 3e-2)
SETTINGS = Settings(BOTH, tuning_seeds=3, steps=STEPS, learning_rates=RATES, points=20)
_QUICK = Settings(
    BOTH, seeds=2, steps=20, learning_rates=RATES[1:3], points=4, quick=True
)
FEW = (*BOTH, "l2", "digits_apart", "imtl_g")


def part(name: str, settings: Settings, quick: Settings) -> Part:
    """The sum and single tasks, both with the network of the arm of this name."""
    network = ARMS[name].network if name in ARMS else {}
    return Part(
        name=name,
        title=f"Repairs, {name}",
        question=QUESTION,
        problem=partial(problem, **network),
        settings=settings,
        quick=quick,
        rules=(RULE, TRANSFER),
        judge=judge_transfer,
        baseline=SINGLE_TASK,
    )


def usual() -> Part:
    """All arms that take the usual steps."""
    grids = {name: own.grid for name, own in OWN.items() if own.grid}
    changed = {name: own.network for name, own in OWN.items() if own.network}
    return part(
        USUAL,
        SETTINGS._replace(methods=(*BOTH, *list(IN_USUAL)[1:]), grids=grids),
        _QUICK._replace(methods=FEW, grids={x: grids[x] for x in FEW if x in grids}),
    )._replace(
        methods={name: own.method for name, own in OWN.items()},
        variants={name: partial(problem, **own) for name, own in changed.items()},
    )


_DROPOUT = dict.fromkeys(BOTH, ARMS[DROPPED].grid)
_LONG = SETTINGS._replace(steps=4 * STEPS, learning_rates=RATES[:3])
_PARTS = (
    usual(),
    part(WIDER, SETTINGS, _QUICK),
    part(DROPPED, SETTINGS._replace(grids=_DROPOUT), _QUICK._replace(grids=_DROPOUT)),
    part(LONGER, _LONG, _QUICK),
)
STUDY = Study(
    name="repairs",
    title="What repairs negative transfer",
    question=QUESTION,
    parts=_PARTS,
    quick=(_PARTS[0], _PARTS[2]),
    document=document,
    has_fixed_methods=True,
)
