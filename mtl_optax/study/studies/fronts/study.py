"""Preferences on concave fronts: what do linear weights find, what Tchebycheff's?"""

from functools import partial

from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.studies.fronts import report, rule
from mtl_optax.study.studies.fronts.problem import (
    FACTORIES,
    SHARES,
    SIZES,
    methods,
    problem,
)

QUESTION = (
    "Two losses with a concave front that is known, and a run for each of many "
    "preferences. What do linear weights find of the front, what Tchebycheff's?"
)
_SETTINGS = Settings(
    methods=tuple(FACTORIES),
    seeds=5,
    steps=1000,
    learning_rates=(0.02,),
    points=50,
    grids={method: {"share": SHARES} for method in FACTORIES},
)
_QUICK = _SETTINGS._replace(
    seeds=2,
    steps=100,
    learning_rates=(0.1,),
    grids={method: {"share": (0.1, 0.5, 0.9)} for method in FACTORIES},
    quick=True,
)


def part(name: str) -> Part:
    """The study on one problem."""
    return Part(
        name=name,
        title=name,
        question=QUESTION,
        problem=partial(problem, name),
        settings=_SETTINGS,
        quick=_QUICK,
        judge=partial(rule.judge, name=name),
        rules=(rule.RULE,),
        figures=(report.fronts,),
        tables=(report.coverage,),
        files=report.files,
        has_single_task=False,
        methods=methods(name),
    )


STUDY = Study(
    name="fronts",
    title="Concave fronts",
    question=QUESTION,
    parts=tuple(map(part, SIZES)),
    quick=tuple(map(part, SIZES)),
    document=report.document,
    has_fixed_methods=True,
)
