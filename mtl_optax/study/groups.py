"""The study of task groups on digits, where the true groups are known.

A part is a number of tasks and a network. The joint run is watched by TAG; selective
group updates run with the paper's preference and with one that was fixed on other
seeds, as `benchmarks/results/groups` tells. The learning rate is constant, because on
shared parameters their optimiser counts a step for each group: a schedule would end as
many times earlier.
"""

from functools import partial

from mtl_optax.study import grouped, groups_report
from mtl_optax.study.blocks import block_digits, truth
from mtl_optax.study.compare import Study
from mtl_optax.study.figures.accuracy import accuracy
from mtl_optax.study.figures.affinity import affinity
from mtl_optax.study.figures.decrease import decrease
from mtl_optax.study.figures.differences import differences
from mtl_optax.study.figures.groups_over_time import groups_over_time
from mtl_optax.study.groups_judge import CHOSEN, DEFAULT, JOINT, judge
from mtl_optax.study.groups_tables import decrease_table, group_table
from mtl_optax.study.methods import SINGLE_TASK
from mtl_optax.study.outcome import Outcome
from mtl_optax.study.problem import Problem
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite
from mtl_optax.study.verdicts import groups, null

QUESTION = (
    "Two digits overlap in each image, and the tasks are in two blocks: questions "
    "about the left digit, and the same about the right one. Which method finds the "
    "blocks by itself, and what is it worth to know them?"
)


def then(
    problem: Problem, settings: Settings, outcomes: dict[str, Outcome]
) -> dict[str, Outcome]:
    """Networks for the groups of TAG, and for the true blocks."""
    num_tasks = len(problem.tasks)
    if JOINT not in outcomes or num_tasks == 2:
        return {}  # the groups of two tasks are both, or single ones: trained already
    joint = outcomes[JOINT]
    measured = joint.readings["affinity"][-1, 0]
    chosen = groups.tag_groups(measured)
    work = {
        "grouped": list(map(grouped.division, measured, chosen)),
        "blocks": [grouped.division(x, truth(num_tasks)) for x in measured],
    }
    rate = settings.candidates(JOINT)[joint.chosen[0]].learning_rate
    return grouped.train(problem, settings, rate, work)


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


def part(num_tasks: int, network: str) -> Study:
    """The study with so many tasks and this network."""
    settings = _SETTINGS
    if network == "cnn":  # a step costs five times as much
        settings = settings._replace(steps=300)
    elif num_tasks == 6:  # gradient methods once, where there is most to balance
        methods = (*_GROUPING, "cagrad", "pcgrad", "mgda", SINGLE_TASK)
        settings = settings._replace(methods=methods)
    return Study(
        name=f"{network}_{num_tasks}",
        title=f"Task groups: {num_tasks} tasks in two blocks, {network}",
        question=QUESTION,
        problem=partial(block_digits, num_tasks, network),
        settings=settings,
        quick=_QUICK,
        figures=(affinity, groups_over_time, accuracy, differences, decrease),
        rules=(groups.RULE, null.RULE.replace("unitary", JOINT)),
        judge=judge,
        baseline=JOINT,
        tables=(group_table, decrease_table),
        then=then,
    )


SUITE = Suite(
    name="groups",
    title="Task groups with a known truth",
    question=QUESTION,
    parts=tuple(part(t, network) for network in ("mlp", "cnn") for t in (2, 4, 6)),
    quick=(part(4, "mlp"),),
    write=groups_report.write,
    show=groups_report.show,
)
