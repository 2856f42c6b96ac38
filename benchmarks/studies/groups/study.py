"""The study of task groups on digits, where the true groups are known.

A part is a number of tasks and a network. The joint run is watched by TAG; selective
group updates run with the paper's preference and with one that was fixed on other
seeds, as `benchmarks/results/groups` tells. The learning rate is constant, because on
shared parameters their optimiser counts a step for each group: a schedule would end as
many times earlier.
"""

from functools import partial

from benchmarks.studies.groups.blocks import block_digits
from benchmarks.studies.groups.document import (
    decrease_table,
    document,
    group_table,
)
from benchmarks.studies.groups.figures import (
    affinity,
    decrease,
    groups_over_time,
)
from benchmarks.studies.groups.halves import joint
from benchmarks.studies.groups.networks import then
from benchmarks.studies.groups.rule import CHOSEN, DEFAULT, JOINT, RULES, judge
from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Part, Study
from mtl_optax.study.report.figures.accuracy import accuracy
from mtl_optax.study.report.figures.differences import differences

QUESTION = (
    "Two digits overlap in each image, and the tasks are in two blocks: questions "
    "about the left digit, and the same about the right one. Which method finds the "
    "blocks by itself, and what is it worth to know them?"
)

# Fixed on seeds 5 to 9 of the six tasks with the MLP, by benchmarks/groups_tuning.py:
# the preference with the blocks in the most of them, for the longest; the paper's decay
# and warm-up, which do as well as others.
SELECTIVE: dict[str, tuple[float, ...]] = {"decay": (1e-3,), "warmup": (100.0,)}
PREFERENCE = 0.2
_GROUPING = (JOINT, DEFAULT, CHOSEN)
_SETTINGS = Settings(
    (*_GROUPING, SINGLE_TASK),
    steps=600,
    learning_rates=(3e-3,),
    schedule="constant",
    points=60,
    grids={DEFAULT: SELECTIVE, CHOSEN: SELECTIVE | {"preference": (PREFERENCE,)}},
)
_QUICK = _SETTINGS._replace(seeds=2, steps=150, points=30, quick=True)


def part(num_tasks: int, network: str) -> Part:
    """So many tasks and this network."""
    settings = _SETTINGS
    if network == "cnn":  # a step costs five times as much
        settings = settings._replace(steps=300)
    elif num_tasks == 6:  # gradient methods once, where there is most to balance
        methods = (*_GROUPING, "cagrad", "pcgrad", "mgda", SINGLE_TASK)
        settings = settings._replace(methods=methods)
    return Part(
        name=f"{network}_{num_tasks}",
        title=f"Task groups: {num_tasks} tasks in two blocks, {network}",
        question=QUESTION,
        problem=partial(block_digits, num_tasks, network),
        settings=settings,
        quick=_QUICK,
        figures=(affinity, groups_over_time, accuracy, differences, decrease),
        tables=(group_table, decrease_table),
        rules=RULES,
        judge=judge,
        baseline=JOINT,
        methods={JOINT: joint},
        readings=("affinity", "groups", "decrease"),
        then=then,
    )


STUDY = Study(
    name="groups",
    title="Task groups with a known truth",
    question=QUESTION,
    parts=tuple(part(t, network) for network in ("mlp", "cnn") for t in (2, 4, 6)),
    quick=(part(4, "mlp"),),
    document=document,
)
