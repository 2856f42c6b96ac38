"""Search for the groups of tasks that serve all tasks best.

The authors of TAG try every choice of groups, their paper speaks of branch and bound.
Seen as a facility-location problem (open at most b groups, serve each task from its
best one) it has a Lagrangian bound that is nearly tight, so that few groups and a short
search remain. Groups are rows `[G, T]` of bools. Host-side NumPy.
"""

import itertools

import numpy as np

_EXACT = 12  # up to here all groups are enumerated, 4,083 of two or more of 12 tasks
_CLIMBS = 300  # of the local search
_BOUND_STEPS = 100  # of the subgradient method, at each node
_ROUNDING = 1e-12  # scores this close, relative to the largest affinity, are ties


def best_groups(matrix: np.ndarray, budget: int) -> np.ndarray:
    """At most `budget` groups `[b, T]` for affinities `[T, T]` without a diagonal."""
    members = local_search(matrix, budget)
    return members if len(matrix) > _EXACT else _exact(matrix, budget, members)


def group_scores(matrix: np.ndarray, members: np.ndarray) -> np.ndarray:
    """S(g, i) `[G, T]` of groups `[G, T]` bool; -inf where i has no company in g."""
    others = members.sum(axis=1, keepdims=True) - 1
    scores = members @ matrix / np.maximum(others, 1)
    return np.where(members & (others > 0), scores, -np.inf)


def _rounding(matrix: np.ndarray) -> float:
    """Totals over tasks that differ by less are ties."""
    return float(_ROUNDING * len(matrix) * (np.abs(matrix).max() or 1))


def total_score(matrix: np.ndarray, members: np.ndarray) -> float:
    """What all tasks get, each from the best of the groups."""
    return float(group_scores(matrix, members).max(axis=0).sum())


def local_search(matrix: np.ndarray, budget: int) -> np.ndarray:
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
        if total_score(matrix, members) > total_score(matrix, best):
            best = members
    return best[np.unique(group_scores(matrix, best).argmax(axis=0))]


def _climb(matrix: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Replaces one group at a time by the best of its neighbours, while that helps.

    Its neighbours: itself with a task more, a task less, or a task exchanged; all
    pairs; all tasks.
    """
    members, every = members.copy(), np.eye(len(matrix), dtype=bool)
    pairs = np.array([a | b for a, b in itertools.combinations(every, 2)])
    whole = np.ones((1, len(matrix)), bool)
    total, waiting = total_score(matrix, members), list(range(len(members)))
    while waiting:
        group = waiting.pop(0)
        others = group_scores(matrix, np.delete(members, group, axis=0))
        served = others.max(axis=0, initial=-np.inf)
        toggled = every ^ members[group]
        exchanged = (toggled[members[group], None] ^ every[~members[group]]).reshape(
            -1, len(matrix)
        )
        options = np.concatenate([toggled, exchanged, pairs, whole])
        totals = np.maximum(group_scores(matrix, options), served).sum(axis=1)
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
    scores = np.ascontiguousarray(group_scores(matrix, every).T)
    start = np.full(len(matrix), -np.inf), scores.max(axis=1)
    best = total_score(matrix, members)
    while better := _first_reaching(scores, budget, best + tie, *start):
        best = total_score(matrix, _climb(matrix, every[better]))
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
