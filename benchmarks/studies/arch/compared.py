"""Architectures on one problem, side by side: what each scores, and against what.

Each is a part of the study. Those with the same tasks are compared; the first of them
is plain hard sharing, which has the single tasks among its methods.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.studies.arch import rule
from benchmarks.studies.arch.cost import problems
from mtl_optax.analysis.comparison import delta_m
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.problem import Problem
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.summaries import means

CONTROLS = "hard_sharing"  # how the names of plain and wider networks begin
FIXED = 3e-3  # the rate of `mtl-optax study transfer`


class View(NamedTuple):
    """Architectures on one problem, each at its best rate, or all at the same one.

    Each has the name of its part; the single tasks stand before them.
    """

    problem: Problem  # that of hard sharing
    costs: pd.DataFrame  # a row an architecture
    rate: float | None  # of all; None: the best of each on validation data
    rates: dict[str, float]
    scores: dict[str, NDArray]  # [seeds, T], the first metric on the reported split
    delta_m: dict[str, NDArray]  # [seeds], against single tasks in percent

    @property
    def name(self) -> str:
        """Of the problem, without that of the network, which comes last."""
        return self.problem.name.rpartition(", ")[0]

    @property
    def title(self) -> str:
        """Which rates."""
        best = "each at its best rate"
        return best if self.rate is None else f"all at the rate {self.rate:g}"

    @property
    def architectures(self) -> list[str]:
        """Hard sharing first."""
        return list(self.costs.index)

    @property
    def seeds(self) -> int:
        """How many are paired."""
        return len(self.delta_m[SINGLE_TASK])

    def change(self, name: str) -> NDArray:
        """Of each task, from a network of its own, `[seeds, T]`."""
        return self.scores[name] - self.scores[SINGLE_TASK]

    def beyond(self) -> dict[str, tuple[str, NDArray]]:
        """Architecture -> its control, and Δm minus that of the control, `[seeds]`."""
        own = controls(self.costs["parameters"])
        return {x: (y, self.delta_m[x] - self.delta_m[y]) for x, y in own.items()}

    def statement(self) -> str:
        """What is said on all."""
        beyond = {x: rule.beyond_size(own) for x, (_, own) in self.beyond().items()}
        said = rule.statement(self.scores, beyond, self.problem.tasks)
        return f"{self.name}, {self.title}. {said}"

    def table(self) -> pd.DataFrame:
        """Means; differences from single tasks, hard sharing and the control."""
        values = np.stack([np.c_[self.scores[x], self.delta_m[x]] for x in self.scores])
        tasks = [*self.problem.tasks, "all"]
        axes = list(self.scores), range(self.seeds), tasks
        index = pd.MultiIndex.from_product(axes, names=["method", "seed", "task"])
        tidy = pd.DataFrame({"value": values.ravel()}, index).reset_index()
        tidy["candidate"] = tidy["method"].map(self.rates).map("{:g}".format)
        score = self.problem.metrics[0].name
        tidy["metric"] = np.where(tidy["task"] == "all", "delta_m", score)
        tidy = tidy.assign(part=self.title, scale=1, split=self.problem.reported_on)
        own = controls(self.costs["parameters"])
        control = tidy["method"].map(lambda name: own.get(name, ""))
        bases = SINGLE_TASK, self.architectures[0], control
        found = pd.concat([means(tidy, base) for base in bases]).drop_duplicates()
        is_single = found["method"] == SINGLE_TASK
        found = found[is_single == (found["baseline"] == "")]
        sizes = dict(self.costs["parameters"])
        sizes[SINGLE_TASK] = self.costs["single_tasks"].iloc[0]
        found.insert(3, "parameters", found["method"].map(sizes))
        names = {"part": "rates", "method": "architecture", "candidate": "rate"}
        return found.drop(columns="scale").rename(columns=names)


def views(parts: dict[str, PartResult], costs: pd.DataFrame) -> list[View]:
    """Of each problem; FIXED before the best rates, if all have tried it and others."""
    found = []
    for group in problems(parts):
        grids = [own.settings.learning_rates for own in group.values()]
        rates: list[float | None] = [None]
        if len({rate for grid in grids for rate in grid}) == 1:
            rates = [*grids[0]]
        elif all(FIXED in grid for grid in grids):
            rates = [FIXED, None]
        found += [view(group, costs.loc[list(group)], rate) for rate in rates]
    return found


def view(parts: dict[str, PartResult], costs: pd.DataFrame, rate: float | None) -> View:
    """Of the parts of one problem."""
    first = next(iter(parts.values()))
    problem, main = first.problem, first.problem.metrics[0]
    runs = {SINGLE_TASK: first.methods[SINGLE_TASK]}
    runs |= {name: own.methods[BASELINE] for name, own in parts.items()}
    rates, scores, measured = {}, {}, {}
    for name, own in runs.items():
        tried = [candidate.learning_rate for candidate in own.candidates]
        at = own.chosen[0] if rate is None else tried.index(rate)
        found = own.metrics[problem.reported_on]
        rates[name], scores[name] = tried[at], found[main.name][at, 0]
        measured[name] = found["measure" if problem.measures else main.name][at, 0]
    kinds = problem.measures or (main,) * len(problem.tasks)
    higher, base = [x.higher_is_better for x in kinds], measured[SINGLE_TASK]
    delta = {
        name: np.array([delta_m(*x, higher) for x in zip(own, base, strict=True)])
        for name, own in measured.items()
    }
    return View(problem, costs, rate, rates, scores, delta)


def controls(sizes: pd.Series) -> dict[str, str]:
    """Architecture -> the narrowest hard sharing with no fewer parameters."""
    wide = sizes[sizes.index.str.startswith(CONTROLS)]
    return {
        name: wide[wide >= size].idxmin()
        for name, size in sizes.items()
        if name not in wide and (wide >= size).any()
    }
