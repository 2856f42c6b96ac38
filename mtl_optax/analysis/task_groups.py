"""Which tasks to train together: groups under a budget of networks (TAG, Fifty et al.).

The network selection of "Efficiently Identifying Task Groupings for Multi-Task
Learning" (arXiv 2109.04617). Host-side NumPy; nothing here is traced.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_optax.analysis.group_search import best_groups, group_scores
from mtl_optax.core.arguments.checks import static_int

Group = tuple[int, ...]


class GroupRun(NamedTuple):
    """A network of :func:`train_groups`."""

    tasks: Group  # trained together
    serves: Group  # those of them for which this is the best group
    result: Any  # what the training function returned


def select_task_groups(affinity: Any, budget: int) -> tuple[tuple[Group, ...], float]:
    r"""The groups of tasks, one network each, that serve all tasks best.

    .. math::
      \max_{|C| \le b} \frac1T \sum_i \max_{g \in C,\, i \in g} S(g, i), \quad
      S(g, i) = \frac{1}{|g| - 1} \sum_{j \in g,\, j \ne i} Z_{ji}

    Groups may overlap, each task is served by its best one, and no group holds a single
    task. Ties go to fewer groups, then to the first in lexicographic order, which is
    the order of the authors' enumeration.

    Args:
      affinity: `[T, T]`, `affinity[source, recipient]`, how much a step for the source
        helps the recipient, for example `task_affinity`'s. (Tables in the paper's code
        have recipients as rows: transpose them.) The diagonal is not read.
      budget: the largest number of groups, a Python int.

    Returns:
      `(groups, score)`: groups as a tuple of tuples of task indices, both in order, and
      the mean over tasks of the affinity that each gets. The optimum up to 12 tasks,
      above that the best that a local search finds. :func:`train_groups` trains them.

    Raises:
      ValueError: for an affinity that is not a square matrix of finite numbers or has
        fewer than two tasks; for a budget that is no positive Python int.

    Cost: about a second on a CPU for 12 tasks, at any budget, ties or not. Above 12 a
    local search from fixed random starts: 1 second for 20 tasks, 2 minutes for 50. On
    60 matrices of 12 tasks it found the optimum 59 times, and once fell short of it by
    0.03 standard deviations of the affinities.

    When not to use it: to learn whether training together helps at all. Tasks without
    any useful company are still given some; compare with single-task training. And
    affinity to a group is taken as the mean over its pairs, which is an approximation.

    Example:
      >>> import mtl_optax as mtl
      >>> affinity = [
      ...     [0.0, 0.9, 0.1, 0.1],
      ...     [0.7, 0.0, 0.1, 0.1],
      ...     [0.1, 0.1, 0.0, 0.5],
      ...     [0.1, 0.1, 0.5, 0.0],
      ... ]
      >>> groups, score = mtl.select_task_groups(affinity, budget=2)
      >>> groups, round(score, 4)
      (((0, 1), (2, 3)), 0.65)

    References:
      Fifty et al., `Efficiently Identifying Task Groupings for Multi-Task Learning
      <https://arxiv.org/abs/2109.04617>`_, 2021.
    """
    matrix = _matrix(affinity)
    budget = min(static_int("budget", budget), len(matrix))
    members = best_groups(matrix, budget)
    groups = sorted(tuple(np.flatnonzero(member).tolist()) for member in members)
    return tuple(groups), float(group_scores(matrix, members).max(axis=0).mean())


def served_by(affinity: Any, groups: Sequence[Sequence[int]]) -> Group:
    r"""For each task, which of the groups helps it most.

    .. math:: \arg\max_{g \ni i} S(g, i)

    Args:
      affinity: as in :func:`select_task_groups`.
      groups: tuples of task indices; together they hold every task.

    Returns:
      T indices into `groups`; the first of equal ones. A task that is alone in a group
      is served by it only if it is in no other.

    Raises:
      ValueError: for an affinity as in :func:`select_task_groups`; for a group that
        names a task which is not there, or a task in no group.

    When not to use it: after training, where each task's own validation metric decides
    between the networks that hold it.

    Example:
      >>> import mtl_optax as mtl
      >>> affinity = [[0.0, 0.1, 0.2], [0.8, 0.0, 0.3], [0.1, 0.4, 0.0]]
      >>> mtl.served_by(affinity, groups=((0, 1), (1, 2)))
      (0, 1, 1)

    References:
      As :func:`select_task_groups`.
    """
    matrix = _matrix(affinity)
    members = np.zeros((len(groups), len(matrix)), bool)
    for member, group in zip(members, groups, strict=True):
        if not set(group) <= set(range(len(matrix))):
            raise ValueError(
                f"Group {tuple(group)} names a task that is not there: affinity is "
                f"about {len(matrix)} tasks, numbered from 0."
            )
        member[list(group)] = True
    missing = np.flatnonzero(~members.any(axis=0)).tolist()
    if missing:
        raise ValueError(
            f"Tasks {missing} are in no group, so that no network would serve them: "
            "add them to one."
        )
    # A task alone has no score: below any other, above that of groups without it.
    alone = -2 * (1 + np.abs(matrix).max())
    helps = np.maximum(group_scores(matrix, members), np.where(members, alone, -np.inf))
    return tuple(helps.argmax(axis=0).tolist())


def train_groups(
    train_fn: Callable[[Group], Any], affinity: Any, groups: Sequence[Sequence[int]]
) -> tuple[GroupRun, ...]:
    r"""Trains one network for each group, and says which tasks it is to serve.

    Args:
      train_fn: `train_fn(tasks) -> result`, trains a network on the tasks with these
        indices; what it returns (parameters, metrics) is passed on.
      affinity: as in :func:`select_task_groups`.
      groups: for example those of :func:`select_task_groups`.

    Returns:
      One run `(tasks, serves, result)` for each group, in order: the tasks that are
      trained together, those of them for which this is the best group (see
      :func:`served_by`), and what `train_fn` returned. Each task is served once. A
      group that serves no task is not trained, its result is None.

    Raises:
      ValueError: as :func:`served_by`, before any training.

    When not to use it: to train the groups side by side on several machines; take
    `groups` and :func:`served_by` there.

    Example:
      >>> import mtl_optax as mtl
      >>> affinity = [[0.0, 0.1, 0.2], [0.8, 0.0, 0.3], [0.1, 0.4, 0.0]]
      >>> groups, score = mtl.select_task_groups(affinity, budget=2)
      >>> train_fn = lambda tasks: f"network for {len(tasks)} tasks"
      >>> for run in mtl.train_groups(train_fn, affinity, groups):
      ...     print(run.tasks, run.serves, run.result)
      (0, 1) (0,) network for 2 tasks
      (1, 2) (1, 2) network for 2 tasks

    References:
      As :func:`select_task_groups`.
    """
    best = served_by(affinity, groups)
    runs = []
    for number, group in enumerate(groups):
        serves = tuple(task for task, home in enumerate(best) if home == number)
        tasks = tuple(sorted({int(task) for task in group}))
        runs.append(GroupRun(tasks, serves, train_fn(tasks) if serves else None))
    return tuple(runs)


def _matrix(affinity: Any) -> np.ndarray:
    """The affinity as float64 without its diagonal."""
    matrix = np.array(affinity, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            "affinity must be a square matrix [T, T], affinity[source, recipient]; got "
            f"shape {matrix.shape}."
        )
    if len(matrix) < 2:
        raise ValueError(
            "affinity is about one task, which has no company to choose: grouping "
            "needs two tasks or more."
        )
    if not np.isfinite(matrix).all():
        raise ValueError(
            "affinity must be finite, but entries "
            f"{np.argwhere(~np.isfinite(matrix)).tolist()} are not. Put 0 for pairs "
            "that were not measured (the diagonal is not read, but must be finite too)."
        )
    np.fill_diagonal(matrix, 0)
    return matrix
