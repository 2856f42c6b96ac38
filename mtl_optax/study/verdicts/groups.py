"""Whether the groups that a method made are the blocks that are known to be there."""

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.task_groups import select_task_groups
from mtl_optax.core.solvers.proximal_affinity import affinity_groups

Groups = tuple[tuple[int, ...], ...]

BUDGET = 2  # networks, for TAG
PREFERENCES = tuple(float(x) for x in np.round(np.arange(0.9, -1.05, -0.1), 1))
RULE = (
    f"The blocks are recovered if the groups are the two blocks, no task more and none "
    f"less. TAG's groups are those of select_task_groups with budget {BUDGET} from the "
    f"affinity averaged over the whole joint run; they may overlap, and then do not "
    f"count. Those of selective group updates are the groups of a step: of the last "
    f"one, and beside it the share of recorded steps in the second half of training. "
    f"With two tasks the blocks are single tasks: TAG gives no task a network of its "
    f"own and has no choice, selective group updates recover them by never merging."
)


def recovered(groups: Groups, truth: Groups) -> bool:
    """Whether these are the blocks, in any order."""
    return sorted(map(sorted, groups)) == sorted(map(sorted, truth))


def tag_groups(affinity: NDArray) -> list[Groups]:
    """TAG's choice for each seed, from affinities `[seeds, T, T]`."""
    return [select_task_groups(matrix, BUDGET)[0] for matrix in affinity]


def partition(labels: NDArray) -> Groups:
    """Tasks of one label together, from labels `[T]`."""
    return tuple(
        tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)
    )


def share_recovered(labels: NDArray, truth: Groups) -> float:
    """Share of the later half of labels `[records, seeds, T]` that are the blocks."""
    late = labels[len(labels) // 2 :].reshape(-1, labels.shape[-1])
    return float(np.mean([recovered(partition(row), truth) for row in late]))


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


def word(groups: list[Groups], truth: Groups) -> str:
    """For the table: in how many seeds."""
    found = sum(recovered(chosen, truth) for chosen in groups)
    return f"blocks in {found} of {len(groups)}"


def named(groups: Groups, tasks: tuple[str, ...]) -> str:
    """Groups in words."""
    return " | ".join(" ".join(tasks[t] for t in group) for group in groups)


def counted(groups: list[Groups], tasks: tuple[str, ...]) -> str:
    """All that were chosen, each with the number of seeds."""
    number = {chosen: groups.count(chosen) for chosen in groups}
    return "; ".join(f"{named(x, tasks)} ({n})" for x, n in number.items())
