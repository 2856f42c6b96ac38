"""The study of VMTL on four domains of digits: what are the other posteriors worth?

A part is a fraction of the labels. The weights of both divergences are chosen on
validation data, for each arm.
"""

from functools import partial

from benchmarks.studies.vmtl.arms import ARMS
from benchmarks.studies.vmtl.document import document
from benchmarks.studies.vmtl.figure import prior_weights
from benchmarks.studies.vmtl.problem import problem
from benchmarks.studies.vmtl.rule import RULE, SINGLE, judge
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences

QUESTION = (
    "The same digits in four domains: as they are, rotated, inverted, blurred. Few "
    "scans of each have labels. VMTL makes the prior of each domain of what the others "
    "have learned, with weights that it learns. Is that better than to learn alone, "
    "from all domains at once, or with an encoder in common and nothing else?"
)
FRACTIONS = (0.05, 0.1, 0.2)
_GRID: dict[str, tuple[float, ...]] = {"beta": (1e-4, 1e-3, 1e-2), "eta": (1e-7, 1e-2)}
_SETTINGS = Settings(
    tuple(ARMS),
    steps=400,
    learning_rates=(3e-3,),
    points=20,
    grids=dict.fromkeys(ARMS, _GRID),
)
_ONE: dict[str, tuple[float, ...]] = {"beta": (1e-3,), "eta": (1e-7,)}
_FEW = ("single", "pooled", "vmtl_sum")
_QUICK = _SETTINGS._replace(
    methods=_FEW,
    seeds=2,
    steps=150,
    grids=dict.fromkeys(_FEW, _ONE),
    quick=True,
)


def part(fraction: float) -> Part:
    """The study at a fraction of the labels."""
    return Part(
        name=f"labels_{100 * fraction:g}",
        title=f"VMTL with {100 * fraction:g} % of the labels",
        question=QUESTION,
        problem=partial(problem, fraction, SINGLE),
        settings=_SETTINGS,
        quick=_QUICK,
        figures=(accuracy, differences, prior_weights),
        rules=(RULE,),
        judge=judge,
        baseline=SINGLE,
        has_single_task=False,
        # An arm is a problem of its own; its losses are added.
        methods=dict.fromkeys(ARMS, METHODS["unitary"]),
        variants={arm: partial(problem, fraction, arm) for arm in ARMS},
    )


STUDY = Study(
    name="vmtl",
    title="VMTL on four domains of digits",
    question=QUESTION,
    parts=tuple(map(part, FRACTIONS)),
    quick=(part(FRACTIONS[0]),),
    document=document,
    has_fixed_methods=True,
)
