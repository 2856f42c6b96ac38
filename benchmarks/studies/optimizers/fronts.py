"""Which optimiser's runs are on the Pareto front, and how far they lie apart."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.pareto import pareto_mask
from mtl_optax.study.engine.study import PartResult, StudyResult
from mtl_optax.study.report.paired import INTERVALS

ADAM, SGD = "adam", "sgd"
RULE = (
    "A point is a run: an optimiser, a method and a rate, at the test errors of its "
    "tasks. It is on the front if no other point of its seed is at least as good in "
    "all tasks and better in one. The share of an optimiser is that of the points on "
    "the front that are its runs, for each seed: one half by chance between Adam and "
    "SGD, which have as many runs. All rates: every run of both. Tuned: one point a "
    f"method and optimiser, the rate chosen on validation images and other seeds. "
    f"{INTERVALS}"
)


class Condition(NamedTuple):
    """The runs of every optimiser on the same tasks and scales."""

    name: str
    parts: dict[str, PartResult]  # by optimiser

    @property
    def first(self) -> PartResult:
        """Of one optimiser, for what they have in common."""
        return next(iter(self.parts.values()))

    def errors(self, optimizer: str, tuned: bool) -> NDArray:
        """Of all runs in percent, `[methods, rates, seeds, T]`; tuned has one rate."""
        every = []
        for own in self.parts[optimizer].methods.values():
            values = 100 - own.metrics["test"]["accuracy"][:, 0]
            every.append(values[own.chosen] if tuned else values)
        return np.stack(every)


def conditions(result: StudyResult) -> list[Condition]:
    """In the order of the study."""
    found: dict[str, dict[str, PartResult]] = {}
    for name, own in result.parts.items():
        optimizer = own.settings.optimizer
        found.setdefault(name.removesuffix(f"_{optimizer}"), {})[optimizer] = own
    return [Condition(*pair) for pair in found.items()]


def on_front(points: NDArray) -> NDArray[np.bool_]:
    """Which points of each seed, of points `[N, seeds, T]` -> `[N, seeds]`."""
    masks = [pareto_mask(points[:, seed]) for seed in range(points.shape[1])]
    return np.stack([np.asarray(mask) for mask in masks], axis=1)


def shares(
    condition: Condition, optimizers: tuple[str, ...], tuned: bool
) -> dict[str, NDArray]:
    """Of the front of these optimisers' runs, in percent, `[seeds]` each."""
    points = {}
    for name in optimizers:
        errors = condition.errors(name, tuned)
        points[name] = errors.reshape(-1, *errors.shape[2:])
    mask = on_front(np.concatenate(list(points.values())))
    ends = np.cumsum([len(own) for own in points.values()])[:-1]
    of_each = zip(points, np.split(mask, ends), strict=True)
    return {name: 100 * own.sum(axis=0) / mask.sum(axis=0) for name, own in of_each}


def gains(condition: Condition, ours: str, theirs: str) -> dict[str, NDArray]:
    """Method -> accuracy in points, tuned, mean over tasks, ours minus theirs."""
    pair = [condition.errors(name, tuned=True)[:, 0] for name in (ours, theirs)]
    difference = (pair[1] - pair[0]).mean(axis=-1)  # [methods, seeds]
    return dict(zip(condition.first.methods, difference, strict=True))
