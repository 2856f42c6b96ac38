"""The study of scalarisation: every method tuned alike, plain and regularised."""

from functools import partial

from benchmarks.studies.scalarisation.document import document
from benchmarks.studies.scalarisation.rule import METHODS, PLAIN, REGULARISED, RULE
from mtl_optax.study.data.regularised import regularised_digits
from mtl_optax.study.engine import methods
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.engine.transformations import decayed
from mtl_optax.study.report.rules import against, judge_against

SCANS = 300  # to learn from, of 1,097: few enough that regularisation matters
QUESTION = (
    f"Two digits overlap in each image, made of {SCANS} scans; one network names both. "
    "Kurin et al. say that no special method beats the plain sum once both are tuned "
    "and regularised, and that special methods act as regularisation: do they reach a "
    "higher training loss, and a smaller gap to validation, than the sum?"
)
# Fixed with the sum alone, on seeds that are neither reported nor choose.
GRID: dict[str, tuple[float, ...]] = {"dropout": (0.1, 0.25), "l2": (1e-3, 3e-3, 1e-2)}
SETTINGS = {
    PLAIN: Settings(
        METHODS,
        seeds=10,
        tuning_seeds=5,
        learning_rates=(1e-3, 3e-3, 1e-2, 3e-2),
        points=20,
    ),
    REGULARISED: Settings(
        METHODS,
        seeds=10,
        tuning_seeds=5,
        learning_rates=(3e-3, 1e-2),
        points=20,
        grids=dict.fromkeys(METHODS, GRID),
    ),
}
FEW = ("unitary", "imtl_g")


def part(name: str) -> Part:
    """Without dropout and L2, or with both."""
    settings = SETTINGS[name]
    few = {name: values[:1] for name, values in GRID.items()}
    return Part(
        name=name,
        title=f"Scalarisation, {name}",
        question=QUESTION,
        problem=partial(regularised_digits, 2, SCANS),
        settings=settings,
        quick=settings._replace(
            methods=FEW,
            seeds=2,
            tuning_seeds=0,
            steps=20,
            grids=dict.fromkeys(FEW, few) if settings.grids else {},
            quick=True,
        ),
        rules=(RULE, against()),
        judge=judge_against,
        has_single_task=False,
        methods={x: decayed(methods.METHODS[x]) for x in METHODS},
    )


_PARTS = (part(PLAIN), part(REGULARISED))
STUDY = Study(
    name="scalarisation",
    title="The sum, tuned and regularised",
    question=QUESTION,
    parts=_PARTS,
    quick=_PARTS,
    document=document,
    has_fixed_methods=True,
)
