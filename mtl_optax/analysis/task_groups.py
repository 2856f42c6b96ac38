"""Which tasks to train together: groups under a budget of networks (TAG, Fifty et al.).

The network selection of "Efficiently Identifying Task Groupings for Multi-Task
Learning" (arXiv 2109.04617). The authors try every choice of groups, their paper speaks
of branch and bound. Seen as a facility-location problem (open at most b groups, serve
each task from its best one) it has a Lagrangian bound that is nearly tight, so that few
groups and a short search remain. Host-side NumPy; nothing here is traced.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_optax.core.checks import static_int

Group = tuple[int, ...]

_EXACT = 12  # up to here all groups are enumerated, 4,083 of two or more of 12 tasks
_CLIMBS = 300  # of the local search
_BOUND_STEPS = 30  # of the subgradient method, at each node
_ROUNDING = 1e-12  # scores this near, relative to the largest affinity, are ties
_BOUND_STEPS = 100
_ROUNDING = 1e-12  # scores this close, relative to the largest affinity, are ties


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
    members = _local_search(matrix, budget)
    if len(matrix) <= _EXACT:
        members = _exact(matrix, budget, members)
    score = _scores(matrix, members).max(axis=0).mean()
    return tuple(sorted(map(_tasks, members))), float(score)


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
    scores = np.maximum(_scores(matrix, members), np.where(members, alone, -np.inf))
    return tuple(scores.argmax(axis=0).tolist())


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


def _tasks(member: np.ndarray) -> Group:
    return tuple(np.flatnonzero(member).tolist())


def _scores(matrix: np.ndarray, members: np.ndarray) -> np.ndarray:
    """S(g, i) `[G, T]` of groups `[G, T]` bool; -inf where i has no company in g."""
    others = members.sum(axis=1, keepdims=True) - 1
    scores = members @ matrix / np.maximum(others, 1)
    return np.where(members & (others > 0), scores, -np.inf)


def _rounding(matrix: np.ndarray) -> float:
    """Totals over tasks that differ by less are ties."""
    return float(_ROUNDING * len(matrix) * (np.abs(matrix).max() or 1))


def _total(matrix: np.ndarray, members: np.ndarray) -> float:
    return float(_scores(matrix, members).max(axis=0).sum())


def _local_search(matrix: np.ndarray, budget: int) -> np.ndarray:
    """Groups `[b, T]` bool from many climbs, always the same ones.

    The first climbs start from random partitions, the others from the best groups so
    far with some memberships turned round.
    """
    rng = np.random.default_rng(0)
    best = _climb(matrix, np.ones((budget, len(matrix)), bool))
    for climb in range(_CLIMBS):
        home = rng.integers(budget, size=len(matrix))
        flips = rng.uniform(size=best.shape) < 0.15
        partition = home[None, :] == np.arange(budget)[:, None]
        members = partition if 3 * climb < _CLIMBS else best ^ flips
        members[members.sum(axis=1) < 2] = True
        members = _climb(matrix, members)
        if _total(matrix, members) > _total(matrix, best):
            best = members
    return best[np.unique(_scores(matrix, best).argmax(axis=0))]


def _climb(matrix: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Replaces one group at a time by the best of its neighbours, while that helps.

    Its neighbours: itself with a task more, a task less, or a task exchanged; all
    pairs; all tasks.
    """
    members, every = members.copy(), np.eye(len(matrix), dtype=bool)
    pairs = np.array([a | b for a, b in itertools.combinations(every, 2)])
    whole = np.ones((1, len(matrix)), bool)
    total, waiting = _total(matrix, members), list(range(len(members)))
    while waiting:
        group = waiting.pop(0)
        others = _scores(matrix, np.delete(members, group, axis=0))
        served = others.max(axis=0, initial=-np.inf)
        toggled = every ^ members[group]
        exchanged = (toggled[members[group], None] ^ every[~members[group]]).reshape(
            -1, len(matrix)
        )
        options = np.concatenate([toggled, exchanged, pairs, whole])
        totals = np.maximum(_scores(matrix, options), served).sum(axis=1)
        if totals.max() > total + _rounding(matrix):
            total, members[group] = totals.max(), options[totals.argmax()]
            waiting = [(group + i) % len(members) for i in range(1, len(members))]
    return members


def _exact(matrix: np.ndarray, budget: int, members: np.ndarray) -> np.ndarray:
    """The best groups, the fewest of the best, the first in order of the fewest."""
    tasks, tie = range(len(matrix)), _rounding(matrix)
    sizes = range(2, len(matrix) + 1)
    groups = sorted(g for n in sizes for g in itertools.combinations(tasks, n))
    every = np.array([[t in group for t in tasks] for group in groups])
    scores = np.ascontiguousarray(_scores(matrix, every).T)
    start = np.full(len(matrix), -np.inf), scores.max(axis=1)
    best = _total(matrix, members)
    while better := _first_reaching(scores, budget, best + tie, *start):
        best = _total(matrix, _climb(matrix, every[better]))
    fewest = (
        _first_reaching(scores, number, best - tie, *start)
        for number in range(1, budget + 1)
    )
    return every[next(found for found in fewest if found is not None)]


def _first_reaching(
    scores: np.ndarray,
    number: int,
    floor: float,
    served: np.ndarray,
    price: np.ndarray,
) -> list[int] | None:
    """The first of at most `number` groups whose total reaches `floor`, if there are.

    Depth first. `scores` are `[T, G]`, groups in order; `served` `[T]` is what tasks
    get from groups chosen before; `price` `[T]` is where the bound starts.
    """
    if served.sum() >= floor:
        return []
    if number == 1:
        reach = np.maximum(scores, served[:, None]).sum(axis=0) >= floor
        return [int(reach.argmax())] if reach.any() else None
    most = np.maximum(scores.max(axis=1, initial=-np.inf), served)
    slack = most.sum() - floor
    if slack < 0:
        return None
    # No task can do with less, whatever the others get.
    scores = np.where(scores >= (most - slack)[:, None], scores, -np.inf)
    kept, price = _not_ruled_out(scores, number, floor, served, price)
    while len(kept):
        first, kept = int(kept[0]), kept[1:]
        now = np.maximum(served, scores[:, first])
        found = _first_reaching(scores[:, kept], number - 1, floor, now, price)
        if found is not None:
            return [first, *(int(kept[i]) for i in found)]
        # Groups that give no task more than this one did: it would do in their place.
        kept = kept[(scores[:, kept] > now[:, None]).any(axis=0)]
    return None


def _not_ruled_out(
    scores: np.ndarray,
    number: int,
    floor: float,
    served: np.ndarray,
    price: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Groups that may still help to reach `floor`, and the last prices `[T]`.

    Let each task have a price no lower than what it gets already. In total, `number`
    groups then give at most the sum of prices and of the largest gains of groups,
    sum over i of max(0, S(g, i) - price_i): the Lagrangian bound, which subgradient
    steps make small. A group is out if the bound with it falls below `floor` once.
    """
    useful = (scores > served[:, None]).any(axis=0)
    number = min(number, scores.shape[1])
    for _ in range(_BOUND_STEPS if number else 0):
        price = np.maximum(price, served)
        gains = np.maximum(scores - price[:, None], 0).sum(axis=0)
        top = np.argpartition(gains, -number)[-number:]
        bound = price.sum() + gains[top].sum()
        useful &= (
            bound - gains[top].min() + np.minimum(gains, gains[top].min()) >= floor
        )
        slope = 1 - (scores[:, top] > price[:, None]).sum(axis=1)
        slope[(price <= served) & (slope > 0)] = 0
        if bound < floor or not slope.any():
            break
        price = price - 1.5 * (bound - floor) / (slope**2).sum() * slope
    return np.flatnonzero(useful), price
