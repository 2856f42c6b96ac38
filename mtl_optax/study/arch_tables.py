"""Tables of the study of architectures: costs, Δm, each task against its own net."""

from mtl_optax.study.arch_cost import single_nets
from mtl_optax.study.arch_scores import View
from mtl_optax.study.compare import Shown
from mtl_optax.study.interleave import Spread
from mtl_optax.study.methods import BASELINE
from mtl_optax.study.verdicts import arch, paired


def cost(view: View) -> Shown:
    """Parameters, also against a network for each task, and the time of a step."""
    first = next(iter(view.results))
    single = single_nets(view.costs[first].size, len(view.tasks))
    rows = []
    for name in view.results:
        own = view.costs[name]
        counts = f"{own.size.total:,}", f"{own.size.shared:,}", f"{own.size.own:,}"
        share = f"{100 * own.size.total / single:.0f} %"
        times = f"{own.milliseconds:.2f}", _spread(own.cpu)
        rows.append((name, [*counts, share, *times]))
    return Shown(
        f"Costs: {view.first.problem.name.rpartition(', ')[0]}",
        f"Parameters in training; single: in percent of the {single:,} of a network "
        f"for each task. CPU milliseconds of a training step of one run, and over that "
        f"of {first} in the same round, median (quartiles); wall time in cost.csv.",
        ["architecture", "all", "shared", "own", "single", "ms", "time"],
        rows,
    )


def gain(view: View) -> Shown:
    """Δm, also against a network as large, and the verdicts."""
    scores, rows = view.scores(), []
    for name, results in view.results.items():
        rate = view.rate
        if rate is None:
            rate = results.chosen(BASELINE)[0].learning_rate
        against, beyond = view.control(name), view.beyond(name)
        more, word = "-", "-"
        if beyond is not None:
            more, word = paired.change(beyond), arch.beyond_size(beyond)
        found = arch.words(scores[name], view.tasks)
        if name == next(iter(view.results)):
            found = dict.fromkeys(found, "loses")
        verdict = ", ".join(f"{task} {said}" for task, said in found.items()) or "-"
        delta = paired.change(view.delta_m(name))
        beside = str(against).removeprefix("hard_sharing_") if against else "-"
        rows.append((name, [f"{rate:g}", delta, beside, more, word, verdict]))
    return Shown(
        f"Δm, {view.title}",
        "Mean relative loss against a network for each task in percent, lower is "
        "better, paired over seeds; then minus that of the narrowest hard sharing with "
        "no fewer parameters, and whether it does more than such a one.",
        ["architecture", "rate", "Δm", "beside", "minus that", "does", "tasks"],
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
    return Shown(
        f"Each task, {view.title}",
        f"{view.metric.capitalize()} in points, minus that of a network of its own.",
        ["architecture", *view.tasks],
        rows,
    )


def _spread(found: Spread) -> str:
    return f"{found.median:.1f} ({found.lower:.1f}-{found.upper:.1f})"
