"""Who finds the blocks that are known to be there, and what groups are worth."""

from typing import NamedTuple

import jax.numpy as jnp
import jinja2
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.groups.blocks import Groups, truth
from mtl_optax.analysis.task_groups import select_task_groups
from mtl_optax.core.solvers.proximal_affinity import affinity_groups
from mtl_optax.study.engine.study import Judgement
from mtl_optax.study.report.rules import Results, against, judge_against

JOINT, DEFAULT, CHOSEN = "joint", "selective_groups", "selective_preference"
TAG = "TAG"  # what joint is watched by
BUDGET = 2  # networks, for TAG
PREFERENCES = tuple(float(x) for x in np.round(np.arange(0.9, -1.05, -0.1), 1))
RULES = (
    f"The blocks are recovered if the groups are the two blocks, no task more and none "
    f"less. TAG's groups are those of select_task_groups with budget {BUDGET} from the "
    f"affinity averaged over the whole joint run; they may overlap, and then do not "
    f"count. Those of selective group updates are the groups of a step: of the last "
    f"one, and beside it the share of recorded steps in the second half of training. "
    f"With two tasks the blocks are single tasks: TAG gives no task a network of its "
    f"own and has no choice, selective group updates recover them by never merging.",
    f"Other words: {against(JOINT)}",
)
NO_CHOICE = "With two tasks TAG has no choice: its smallest group is both."
PAPERS = jinja2.Template("""
The paper's default preference
{%- if merged %} does merge tasks here.
{%- else %}, the median of the similarities, never merged any two tasks here
{%- if two %}: with two tasks the median is (1 + x) / 2 where x is their similarity,
which is above x, so that each stays alone whatever x is{% endif %}.
{{ chosen }} {{ "does in some seed" if chosen_merged else "does not either" }}.
{% if needed is none %}Nor would any preference down to {{ "%g" % least }}
{%- else %}With the affinities at its end, a preference of {{ "%g" % needed }} or less
merges tasks in every seed{% endif %}.{% endif %}""")


class Found(NamedTuple):
    """The groups of a method."""

    groups: list[Groups]  # at the end, one a seed
    seeds: str  # in how many of them these are the blocks
    late: str  # share of recorded steps, late in training, that have the blocks


def found(results: Results, num_tasks: int) -> dict[str, Found]:
    """Of TAG and of the methods that make groups."""
    blocks, made = truth(num_tasks), {}
    for method, own in results.items():
        if method == JOINT and num_tasks > 2:
            groups = tag_groups(own.readings["affinity"][-1, 0])
            made[TAG] = Found(groups, in_seeds(groups, blocks), "-")
        elif "groups" in own.readings:
            labels = own.readings["groups"][:, 0]
            groups = list(map(partition, labels[-1]))
            late = f"{100 * fraction_recovered(labels, blocks):.0f} %"
            made[method] = Found(groups, in_seeds(groups, blocks), late)
    return made


def recovered(groups: Groups, blocks: Groups) -> bool:
    """Whether these are the blocks, in any order."""
    return sorted(map(sorted, groups)) == sorted(map(sorted, blocks))


def in_seeds(groups: list[Groups], blocks: Groups) -> str:
    """In how many seeds the blocks are recovered."""
    return f"{sum(recovered(own, blocks) for own in groups)} of {len(groups)}"


def tag_groups(affinity: NDArray) -> list[Groups]:
    """TAG's choice for each seed, from affinities `[seeds, T, T]`."""
    return [select_task_groups(matrix, BUDGET)[0] for matrix in affinity]


def partition(labels: NDArray) -> Groups:
    """Tasks of one label together, from labels `[T]`."""
    return tuple(
        tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)
    )


def fraction_recovered(labels: NDArray, blocks: Groups) -> float:
    """Share of the later half of labels `[records, seeds, T]` that are the blocks."""
    late = labels[len(labels) // 2 :].reshape(-1, labels.shape[-1])
    return float(np.mean([recovered(partition(row), blocks) for row in late]))


def ever_merged(labels: NDArray) -> bool:
    """Whether any two tasks were ever in one group, of labels `[..., T]`."""
    rows = labels.reshape(-1, labels.shape[-1])
    return any(len(set(row)) < len(row) for row in rows.tolist())


def merging_preference(affinity: NDArray) -> float | None:
    """The largest of PREFERENCES with which tasks merge in every seed `[seeds, T, T]`.

    With affinities as they are, not as they would become.
    """
    num_tasks = affinity.shape[-1]
    ready, alone = jnp.ones(num_tasks, bool), jnp.arange(num_tasks, dtype=jnp.int32)

    def merges(preference: float) -> bool:
        return all(
            ever_merged(np.asarray(affinity_groups(x, preference, ready, alone)))
            for x in map(jnp.asarray, affinity)
        )

    return next((x for x in PREFERENCES if merges(x)), None)


def counted(groups: list[Groups], tasks: tuple[str, ...]) -> str:
    """All that were chosen, in words, each with the number of seeds."""

    def named(own: Groups) -> str:
        return " | ".join(" ".join(tasks[t] for t in group) for group in own)

    number = {own: groups.count(own) for own in groups}
    return "; ".join(f"{named(own)} ({n})" for own, n in number.items())


def judge(results: Results, tasks: tuple[str, ...]) -> Judgement:
    """Who finds the blocks, and what groups are worth."""
    made, compared = found(results, len(tasks)), judge_against(results, tasks, JOINT)
    words = {name: f"blocks in {own.seeds}" for name, own in made.items()}
    statements = [
        f"{name} recovers the blocks in {own.seeds} seeds."
        for name, own in made.items()
    ]
    if JOINT in results and len(tasks) == 2:
        statements.insert(0, NO_CHOICE)
    if DEFAULT in results and CHOSEN in results:
        statements.append(_default(results, len(tasks)))
    if TAG in made:
        words[JOINT] = f"{TAG}: {words.pop(TAG)}"
    return compared._replace(
        verdicts=compared.verdicts | words, statement=" ".join(statements)
    )


def _default(results: Results, num_tasks: int) -> str:
    """Whether the paper's preference merges, and what does where it does not."""
    default = results[DEFAULT].readings
    merged = ever_merged(default["groups"])
    text = PAPERS.render(
        merged=merged,
        two=num_tasks == 2,
        chosen=CHOSEN,
        chosen_merged=ever_merged(results[CHOSEN].readings["groups"]),
        needed=None if merged else merging_preference(default["affinity"][-1, 0]),
        least=PREFERENCES[-1],
    )
    return " ".join(text.split())
