"""Tables of the study of architectures: costs, Δm, each task against its own net."""

from typing import Any

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study.arch_cost import Cost, single_nets
from mtl_optax.study.arch_scores import View, control
from mtl_optax.study.compare import Shown
from mtl_optax.study.interleave import Spread
from mtl_optax.study.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import arch, paired

SUMMARY = (
    *("rates", "architecture", "learning_rate", "parameters", "metric", "task"),
    *("seeds", "mean", "sd", "against", "difference", "t_low", "t_high"),
)
COSTS = (
    *("architecture", "parameters", "shared", "own", "of_single_tasks", "step_cpu_ms"),
    *("cpu_ratio", "cpu_lower", "cpu_upper", "wall_ratio", "wall_lower", "wall_upper"),
)


def cost(whole: Whole, view: View) -> Shown:
    """Parameters, also against a network for each task, and the time of a step."""
    base = whole.measured[next(iter(view.results))].size
    single = single_nets(base, len(view.tasks))
    rows = []
    for name in view.results:
        own: Cost = whole.measured[name]
        counts = f"{own.size.total:,}", f"{own.size.shared:,}", f"{own.size.own:,}"
        share = f"{100 * own.size.total / single:.0f} %"
        times = f"{own.milliseconds:.2f}", _spread(own.cpu), _spread(own.wall)
        rows.append((name, [*counts, share, *times]))
    first = next(iter(view.results))
    return Shown(
        f"Costs: {view.first.problem.name.rpartition(', ')[0]}",
        f"Parameters in training; single: in percent of the {single:,} of a network "
        f"for each task. A training step of one run in CPU milliseconds, and CPU and "
        f"wall time over that of {first} in the same round, median (quartiles).",
        ["architecture", "all", "shared", "own", "single", "ms", "CPU", "wall"],
        rows,
    )


def gain(view: View) -> Shown:
    """Δm, also against a network as large, and the verdicts."""
    scores, rows = view.scores(), []
    for name, results in view.results.items():
        rate = view.rate
        if rate is None:
            rate = results.chosen(BASELINE)[0].learning_rate
        against, beyond = control(view.results, name), view.beyond(name)
        more, word = "-", "-"
        if beyond is not None:
            more = f"{paired.change(beyond)} ({against})"
            word = arch.beyond_size(beyond)
        found = arch.words(scores[name], view.tasks)
        if name == next(iter(view.results)):
            found = dict.fromkeys(found, "loses")
        verdict = ", ".join(f"{task} {said}" for task, said in found.items()) or "-"
        delta = paired.change(view.delta_m(name))
        rows.append((name, [f"{rate:g}", delta, more, word, verdict]))
    return Shown(
        f"Δm, {view.title}",
        "Mean relative loss against a network for each task in percent, lower is "
        "better, paired over seeds; then minus that of the narrowest hard sharing with "
        "no fewer parameters.",
        ["architecture", "rate", "Δm", "minus as wide", "size", "tasks"],
        rows,
    )


def change(view: View) -> Shown:
    """Each task against a network of its own."""
    rows = [
        (
            name,
            [paired.change((x.own - x.single)[:, t]) for t in range(len(view.tasks))],
        )
        for name, x in view.scores().items()
    ]
    metric = view.first.problem.metrics[0].name
    return Shown(
        f"Each task, {view.title}",
        f"{metric.capitalize()} in points, minus that of a network of its own.",
        ["architecture", *view.tasks],
        rows,
    )


def cost_rows(whole: Whole) -> list[tuple[Any, ...]]:
    """Of COSTS."""
    rows = []
    for name, own in whole.measured.items():
        results = whole.results[name]
        first = next(x for x, y in whole.results.items() if y.tasks == results.tasks)
        single = single_nets(whole.measured[first].size, len(results.tasks))
        sizes = own.size.total, own.size.shared, own.size.own
        times = [f"{x:.4f}" for x in (own.milliseconds, *own.cpu, *own.wall)]
        rows.append((name, *sizes, f"{own.size.total / single:.4f}", *times))
    return rows


def summary_rows(whole: Whole, view: View) -> list[tuple[Any, ...]]:
    """Of SUMMARY: each task of each architecture, and its Δm."""
    rates = "best" if view.rate is None else f"{view.rate:g}"
    metric, rows = view.first.problem.metrics[0].name, []
    scores = view.scores()
    shared, single = (next(iter(scores.values()))[k] for k in (1, 2))

    def add(part: str, method: str, values: Any, against: dict[str, Any]) -> None:
        results, name = view.results[part], metric
        label = part if method == BASELINE else method
        rate = view.rate or results.chosen(method)[0].learning_rate
        size = whole.measured[part].size.total
        if method == SINGLE_TASK:
            size = single_nets(whole.measured[part].size, len(view.tasks))
        for t, task in enumerate(view.tasks):
            key = rates, label, f"{rate:g}", size, name, task, len(values)
            mean, sd = f"{values[:, t].mean():.4f}", ""
            if len(values) > 1:
                sd = f"{float(mean_and_sd(values[:, t]).sd):.4f}"
            for other, theirs in (against or {"": values}).items():
                blank = ["", "", ""]
                found = _numbers((values - theirs)[:, t]) if other else blank
                rows.append((*key, mean, sd, other, *found))

    add(next(iter(scores)), SINGLE_TASK, single, {})
    for part, own in scores.items():
        first = part == next(iter(scores))
        others = {} if first else {next(iter(scores)): shared}
        add(part, BASELINE, own.own, {SINGLE_TASK: single} | others)
        rate = view.rate or view.results[part].chosen(BASELINE)[0].learning_rate
        delta, beyond = view.delta_m(part), view.beyond(part)
        key = rates, part, f"{rate:g}", whole.measured[part].size.total
        both = [(SINGLE_TASK, delta)]
        if beyond is not None:
            both.append((str(control(view.results, part)), beyond))
        for other, found in both:
            mean = f"{delta.mean():.4f}"
            numbers = _numbers(found)
            rows.append((*key, "delta_m", "all", len(delta), mean, "", other, *numbers))
    return rows


def _numbers(difference: Any) -> list[str]:
    """Mean and interval."""
    numbers = [f"{difference.mean():.4f}", "", ""]
    if len(difference) > 1:
        found = paired.interval(difference)
        numbers[1:] = f"{found.low:.4f}", f"{found.high:.4f}"
    return numbers


def _spread(found: Spread) -> str:
    return f"{found.median:.1f} ({found.lower:.1f}-{found.upper:.1f})"
