"""Pairs of gradients, and how much those of one kind conflict.

Between tasks: one sample, two tasks. Between samples: one task, two samples.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.digits import NUM_IMAGES
from mtl_optax.study.engine.study import MethodResult, PartResult

JOINT, ONLY = "joint", "only_"
TASKS, SAMPLES, ALONE = "tasks", "samples", "samples alone"
LABELS = {
    TASKS: "between tasks, trained jointly",
    SAMPLES: "between samples, trained jointly",
    ALONE: "between samples, trained alone",
}
NULL_PAIRS = 200
STATISTICS = {
    "spread": "sd of cosines",
    "conflicts": "cosines below 0 / %",
    "magnitude": "magnitude similarity",
    "signs": "opposite signs / %",
}


class Pairs(NamedTuple):
    """Of one kind, `[records, seeds, groups, pairs]`; a group is a pair of tasks, or a
    task. NaN where a gradient is zero."""

    cosine: NDArray
    magnitude: NDArray
    signs: NDArray


def joined(*every: Pairs) -> Pairs:
    """All groups."""
    return Pairs(*(np.concatenate(x, axis=2) for x in zip(*every, strict=True)))


class Gradients(NamedTuple):
    """What was recorded of a run, samples and tasks apart."""

    products: NDArray  # [records, seeds, S, T, S, T]
    signs: NDArray  # likewise

    def _pairs(self, place: Any) -> Pairs:
        """Of pairs of places `[groups, pairs]` of samples and tasks."""
        (s, t), (u, v) = place
        products = self.products[:, :, s, t, u, v]
        norms = self.products[:, :, s, t, s, t], self.products[:, :, u, v, u, v]
        return _compared(products, *norms)._replace(signs=self.signs[:, :, s, t, u, v])

    def between_tasks(self) -> Pairs:
        """One sample, two tasks: a group for each pair of tasks."""
        _, _, samples, tasks, *_ = self.products.shape
        t, v = (x[:, None] for x in np.triu_indices(tasks, 1))
        s = np.arange(samples)[None, :]
        return self._pairs(((s, t), (s, v)))

    def between_samples(self, tasks: Any = slice(None)) -> Pairs:
        """One task, two samples: a group for each of these tasks."""
        _, _, samples, number, *_ = self.products.shape
        t = np.arange(number)[tasks][:, None]
        s, u = (x[None, :] for x in np.triu_indices(samples, 1))
        return self._pairs(((s, t), (u, t)))

    def tasks_of_batches(self) -> Pairs:
        """Gradients of tasks, averaged over samples: signs are not known."""
        products = self.products.mean(axis=(2, 4))
        t, v = (x[:, None] for x in np.triu_indices(products.shape[-1], 1))
        return _of_matrix(products, t, v)

    def samples_of_sums(self) -> Pairs:
        """Gradients of samples, summed over tasks: signs are not known."""
        products = self.products.sum(axis=(3, 5))
        s, u = (x[None, :] for x in np.triu_indices(products.shape[-1], 1))
        return _of_matrix(products, s, u)


def _of_matrix(products: NDArray, i: NDArray, j: NDArray) -> Pairs:
    norms = products[..., i, i], products[..., j, j]
    return _compared(products[..., i, j], *norms)


def _compared(products: NDArray, first: NDArray, second: NDArray) -> Pairs:
    """Inner products and both squared norms."""
    there = (first > 0) & (second > 0)
    lengths = np.sqrt(np.where(there, first * second, np.nan))
    cosine = products / lengths
    return Pairs(cosine, 2 * lengths / (first + second), np.full_like(cosine, np.nan))


def recorded(own: MethodResult, tasks: int, scale: float, at: int) -> Gradients:
    """Of a method at one of its scales, which multiplies the first gradient."""
    assert own.path is not None
    path = own.path[:, at].astype(float)  # [records, seeds, 2, S T, S T]
    factors = np.where(np.arange(tasks) == 0, scale, 1.0)
    shape = path.shape[-1] // tasks, tasks
    both = path.reshape(*path.shape[:3], *shape, *shape)
    weights = factors[:, None, None] * factors
    return Gradients(both[:, :, 0] * weights, both[:, :, 1])


def kinds(result: PartResult, at: int = 0) -> dict[str, Pairs]:
    """Pairs of each kind that the part has, at one of its scales."""
    number, scale = len(result.tasks), result.part.scales[at]
    joint = recorded(result.methods[JOINT], number, scale, at)
    found = {TASKS: joint.between_tasks(), SAMPLES: joint.between_samples()}
    alone = [
        recorded(result.methods[f"{ONLY}{x}"], number, 1, at).between_samples([t])
        for t, x in enumerate(result.tasks)
        if f"{ONLY}{x}" in result.methods
    ]
    return found | ({ALONE: joined(*alone)} if alone else {})


def averaged(result: PartResult, at: int = 0) -> dict[str, Pairs]:
    """The variant: averaged over samples, or summed over tasks, and then compared."""
    number, scale = len(result.tasks), result.part.scales[at]
    joint = recorded(result.methods[JOINT], number, scale, at)
    return {TASKS: joint.tasks_of_batches(), SAMPLES: joint.samples_of_sums()}


def epochs(result: PartResult) -> int:
    """So many windows are summarised one by one."""
    seen = result.settings.steps * result.settings.batch_size
    return max(1, round(seen / NUM_IMAGES["train"]))


def statistics(pairs: Pairs, windows: int) -> dict[str, NDArray]:
    """STATISTICS of each seed `[seeds]`: of an epoch and group, and then their mean."""

    def mean(of: Any, values: NDArray) -> NDArray:
        parts = np.array_split(values, min(windows, len(values)))
        return np.mean([of(x, axis=(0, 3)) for x in parts], axis=(0, 2))

    negative = np.where(np.isnan(pairs.cosine), np.nan, pairs.cosine < 0)
    return {
        "spread": mean(np.nanstd, pairs.cosine),
        "conflicts": 100 * mean(np.nanmean, negative),
        "magnitude": mean(np.nanmean, pairs.magnitude),
        "signs": 100 * mean(np.mean, pairs.signs),
    }


@cache
def null(size: int, seed: int = 0) -> Pairs:
    """Random Gaussian vectors of so many coordinates."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(NULL_PAIRS):
        one, two = rng.standard_normal((2, size))
        # Not by `@`, whose threads wait for each other on a busy machine.
        products = (np.sum(x * y) for x, y in ((one, two), (one, one), (two, two)))
        own = _compared(*map(np.asarray, products))
        found.append([own.cosine, own.magnitude, np.mean(one * two < 0)])
    return Pairs(*np.array(found).T[:, None, None, None, :])
