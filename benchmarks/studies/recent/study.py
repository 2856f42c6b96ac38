"""The study of recent methods: two and four questions, losses of two scales.

A part is a number of tasks. Rates, and one setting of the method's own where its paper
says that it is to be tuned, are chosen on other seeds than those reported.
"""

from functools import partial

from benchmarks.studies.recent import measured
from benchmarks.studies.recent.document import document
from benchmarks.studies.recent.rule import RULE as AGAINST_THE_SUM
from benchmarks.studies.recent.tried import NEW, RELATIVES
from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine.methods import BASELINE, METHODS, SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences
from mtl_optax.study.report.figures.losses import losses
from mtl_optax.study.report.paired import INTERVALS
from mtl_optax.study.report.scale_rule import RULE, SCALES, judge

QUESTION = (
    "Two digits overlap in each image; one network answers two or four questions on "
    f"them. The loss of the first is multiplied by {SCALES[-1]}, or not. Is a method "
    "of 2022 to 2026 better than the plain sum, or than what it grew out of?"
)
SETTINGS = Settings(
    (BASELINE, SINGLE_TASK, *RELATIVES, *NEW),
    tuning_seeds=5,
    learning_rates=(0.001, 0.003, 0.01),
    grids={name: tried.grid for name, tried in NEW.items() if tried.grid},
)
# One that needs losses, one that needs the Gramian, and what each grew out of.
QUICK = ("uw_so", "metabalance")
_QUICK = Settings(
    (BASELINE, *(NEW[name].relative for name in QUICK), *QUICK),
    seeds=2,
    steps=100,
    quick=True,
)


def part(num_tasks: int) -> Part:
    """The study at a number of tasks."""
    return Part(
        name=f"digits_{num_tasks}",
        title=f"Recent methods, {num_tasks} tasks",
        question=QUESTION,
        problem=partial(digits_problem, num_tasks),
        settings=SETTINGS,
        quick=_QUICK,
        figures=(accuracy, differences, losses),
        rules=(RULE, AGAINST_THE_SUM, INTERVALS),
        judge=judge,
        files=measured.files,
        # Wraps others: the mean, with the radius of its relative.
        methods={"samo": METHODS["s_mean"]},
        scales=SCALES,
    )


STUDY = Study(
    name="recent",
    title="Methods of 2022 to 2026",
    question=QUESTION,
    parts=(part(2), part(4)),
    quick=(part(2), part(4)),
    document=document,
)
