"""The numbers of the study of architectures as rows of files."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study.arch_cost import single_nets
from mtl_optax.study.arch_scores import View
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.verdicts import paired

SUMMARY = (
    *("rates", "architecture", "learning_rate", "parameters", "metric", "task"),
    *("seeds", "mean", "sd", "against", "difference", "t_low", "t_high"),
)
COSTS = (
    *("architecture", "parameters", "shared", "own", "of_single_tasks", "step_cpu_ms"),
    *("cpu_ratio", "cpu_lower", "cpu_upper", "wall_ratio", "wall_lower", "wall_upper"),
)


class Compared(NamedTuple):
    """A number a seed, and its difference from another network's."""

    metric: str
    task: str
    values: NDArray  # [seeds]
    against: str
    difference: NDArray  # [seeds]


def costs(view: View) -> list[tuple[Any, ...]]:
    """Of COSTS."""
    first = view.costs[next(iter(view.results))].size
    single = single_nets(first, len(view.tasks))
    rows = []
    for name in view.results:
        own = view.costs[name]
        sizes = own.size.total, own.size.shared, own.size.own
        times = [f"{x:.4f}" for x in (own.milliseconds, *own.cpu, *own.wall)]
        rows.append((name, *sizes, f"{own.size.total / single:.4f}", *times))
    return rows


def summary(view: View) -> list[tuple[Any, ...]]:
    """Of SUMMARY: the tasks of each architecture, and its Δm; single tasks first."""
    rates = "best" if view.rate is None else f"{view.rate:g}"
    first = next(iter(view.results))

    def rate(part: str, method: str) -> str:
        found = view.results[part].chosen(method)[0].learning_rate
        return f"{view.rate or found:g}"

    size = single_nets(view.costs[first].size, len(view.tasks))
    key = rates, SINGLE_TASK, rate(first, SINGLE_TASK), size
    metric, single = view.metric, view.scores()[first].single
    rows = [
        (*key, metric, task, *_summary(single[:, t]), "", "", "", "")
        for t, task in enumerate(view.tasks)
    ]
    for part in view.results:
        key = rates, part, rate(part, BASELINE), view.costs[part].size.total
        rows += [
            (*key, x.metric, x.task, *_summary(x.values), x.against, *_mean(x))
            for x in compared(view, part)
        ]
    return rows


def compared(view: View, part: str) -> Iterator[Compared]:
    """Each task against its own net and hard sharing; Δm also against its control."""
    first, found = next(iter(view.results)), view.scores()[part]
    for t, task in enumerate(view.tasks):
        own = found.own[:, t]
        for other, theirs in ((SINGLE_TASK, found.single), (first, found.shared)):
            if other != part:
                yield Compared(view.metric, task, own, other, own - theirs[:, t])
    delta, beyond = view.delta_m(part), view.beyond(part)
    yield Compared("delta_m", "all", delta, SINGLE_TASK, delta)
    if beyond is not None:
        yield Compared("delta_m", "all", delta, str(view.control(part)), beyond)


def _summary(values: NDArray) -> tuple[Any, ...]:
    """Seeds, mean and sd."""
    sd = f"{float(mean_and_sd(values).sd):.4f}" if len(values) > 1 else ""
    return len(values), f"{values.mean():.4f}", sd


def _mean(found: Compared) -> list[str]:
    """The difference and its interval."""
    numbers = [f"{found.difference.mean():.4f}", "", ""]
    if len(found.difference) > 1:
        interval = paired.interval(found.difference)
        numbers[1:] = f"{interval.low:.4f}", f"{interval.high:.4f}"
    return numbers
