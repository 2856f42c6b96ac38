"""Architectures on one problem, side by side: what each scores, and against what.

Each is a part of the suite. Those with the same tasks are compared, the first of them
is plain hard sharing, which has the single tasks among its methods.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.analysis.comparison import delta_m
from mtl_optax.study.arch_cost import Cost
from mtl_optax.study.compare import Results
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.verdicts import arch

CONTROLS = "hard_sharing"  # how the names of plain and wider networks begin
FIXED = 3e-3  # the rate of `mtl-optax study transfer`


class View(NamedTuple):
    """Architectures on one problem, each at its best rate, or all at the same one."""

    results: dict[str, Results]  # by the name of the part
    costs: dict[str, Cost]  # likewise
    rate: float | None  # None: the best of each on validation data

    @property
    def first(self) -> Results:
        """Plain hard sharing."""
        return next(iter(self.results.values()))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names."""
        return self.first.tasks

    @property
    def title(self) -> str:
        """Which rates."""
        tried = {r for x in self.results.values() for r in x.settings.learning_rates}
        if len(tried) == 1:
            return f"all at the rate {tried.pop():g}"
        if self.rate is None:
            return "each at its best rate on validation data"
        return f"all at the rate {self.rate:g}, that of the study of transfer"

    def values(self, results: Results, method: str, metric: str) -> NDArray:
        """On the reported split, `[seeds, T]`."""
        outcome = results.outcomes[method]
        at = outcome.chosen[0]
        if self.rate is not None:
            rates = [x.learning_rate for x in results.settings.candidates(method)]
            at = rates.index(self.rate)
        return outcome.metrics[results.problem.reported_on][metric][at, 0]

    @property
    def metric(self) -> str:
        """By which tasks are compared, in points."""
        return self.first.problem.metrics[0].name

    def scores(self) -> dict[str, arch.Scores]:
        """Of each architecture, and beside it those that it is compared with."""
        name = self.metric
        shared = self.values(self.first, BASELINE, name)
        single = self.values(self.first, SINGLE_TASK, name)
        return {
            part: arch.Scores(self.values(own, BASELINE, name), shared, single)
            for part, own in self.results.items()
        }

    def delta_m(self, part: str) -> NDArray:
        """Mean relative loss against single tasks, in percent, `[seeds]`."""
        problem = self.first.problem
        name, higher = self.metric, [True] * len(self.tasks)
        if problem.measures:
            name = "measure"
            higher = [measure.higher_is_better for measure in problem.measures]
        own = self.values(self.results[part], BASELINE, name)
        single = self.values(self.first, SINGLE_TASK, name)
        pairs = zip(own, single, strict=True)
        return np.array([delta_m(ours, base, higher) for ours, base in pairs])

    def control(self, part: str) -> str | None:
        """The narrowest hard sharing with no fewer parameters than an architecture."""
        if part.startswith(CONTROLS):
            return None
        sizes = {name: self.costs[name].size.total for name in self.results}
        wide = [
            name
            for name, own in sizes.items()
            if name.startswith(CONTROLS) and own >= sizes[part]
        ]
        return min(wide, key=lambda name: sizes[name], default=None)

    def beyond(self, part: str) -> NDArray | None:
        """Δm minus that of `control`, `[seeds]`, if there is one."""
        found = self.control(part)
        return None if found is None else self.delta_m(part) - self.delta_m(found)

    def statement(self) -> str:
        """What is said on all."""
        differences = {part: self.beyond(part) for part in self.results}
        beyond = {
            part: arch.beyond_size(found)
            for part, found in differences.items()
            if found is not None
        }
        return arch.statement(self.scores(), beyond, self.tasks)


def problems(results: dict[str, Results]) -> list[dict[str, Results]]:
    """The parts in groups with the same tasks."""
    groups: dict[tuple[str, ...], dict[str, Results]] = {}
    for name, own in results.items():
        groups.setdefault(own.tasks, {})[name] = own
    return list(groups.values())


def views(results: dict[str, Results], costs: dict[str, Cost]) -> list[View]:
    """Of the parts of one problem: FIXED first, if all have tried it and others."""
    grids = [own.settings.learning_rates for own in results.values()]
    both = all(FIXED in rates and len(rates) > 1 for rates in grids)
    return [View(results, costs, rate) for rate in ((FIXED, None) if both else (None,))]


def all_views(results: dict[str, Results], costs: dict[str, Cost]) -> list[View]:
    """Of the parts of all problems."""
    return [view for group in problems(results) for view in views(group, costs)]
