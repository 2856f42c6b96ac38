"""What `mtl-optax study arch` shows and leaves of all architectures together."""

from itertools import groupby

import pandas as pd

from benchmarks.studies.arch import rule
from benchmarks.studies.arch.compared import FIXED, View, views
from benchmarks.studies.arch.figures import (
    change_by_task,
    delta_m_against_parameters,
)
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import paired
from mtl_optax.study.report.document import (
    SMOKE,
    Details,
    Document,
    Links,
    Points,
    Table,
    Text,
    figures,
)

LEFT_OUT = (
    "Left out on digits: MTAN and CTAL, which want images and stages; VMTL, whose "
    "tasks have one set of classes and inputs of their own; TaskBatchNorm, a layer."
)
NOTES = (
    "ltb draws its branches with temperatures of 16 epochs and is evaluated on the "
    "branches with the largest logits; self_auxiliary is evaluated, and could be kept, "
    "without its small towers. Parameters are those in training. The rate "
    f"{FIXED:g} is that of the study of transfer; the best is that on validation data."
)


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """Figures; of each problem its costs, and two tables for each choice of rates."""
    every = views(result.parts, result.measured)
    drawn = [view for view in every if view.seeds > 1]
    tables: list[Table] = []
    for _, own in groupby(every, lambda view: view.name):
        same = list(own)
        tables.append(cost(same[0]))
        for view in same:
            tables += [gain(view), change(view)]
    return Document(
        *(result.study.title, result.study.question),
        summary=[
            Points([view.statement() for view in every]),
            *([SMOKE] if result.is_quick else []),
        ],
        body=[
            *figures((change_by_task, delta_m_against_parameters), drawn),
            *tables,
            *map(Text, (LEFT_OUT, NOTES)),
            Details("Rules", [Text(rule.RULE), Text(rule.CONTROL)], open=True),
            Links(
                "Architectures one by one:",
                {name: f"{name}/report.html" for name in documents},
            ),
        ],
        credits=list(
            dict.fromkeys(x for own in documents.values() for x in own.credits)
        ),
        files={
            "compared.csv": pd.concat([view.table() for view in every]),
            "cost.csv": result.measured.reset_index(),
        },
    )


def cost(view: View) -> Table:
    """Parameters, also against a network for each task, and the time of a step."""
    rows = [
        [
            *(x.Index, f"{x.parameters:,}", f"{x.shared:,}", f"{x.own:,}"),
            *(f"{100 * x.of_single_tasks:.0f} %", f"{x.step_cpu_ms:.2f}"),
            f"{x.cpu_ratio:.1f} ({x.cpu_lower:.1f}-{x.cpu_upper:.1f})",
        ]
        for x in view.costs.itertuples()
    ]
    single, first = view.costs["single_tasks"].iloc[0], view.architectures[0]
    return Table(
        f"Costs: {view.name}",
        f"Parameters in training; single: in percent of the {single:,} of a "
        f"network for each task. CPU milliseconds of a training step of one run, and "
        f"over that of {first} in the same round, median (quartiles); wall time in "
        f"cost.csv.",
        ["architecture", "all", "shared", "own", "single", "ms", "time"],
        rows,
    )


def gain(view: View) -> Table:
    """Δm, also against a network as large, and the verdicts."""
    rows, beyond = [], view.beyond()
    words = rule.words(view.scores, view.problem.tasks)
    for name in view.architectures:
        beside = ["-", "-", "-"]
        if name in beyond:
            control, minus = beyond[name]
            beside = [control.removeprefix("hard_sharing_"), paired.change(minus)]
            beside.append(rule.beyond_size(minus))
        said = ", ".join(" ".join(x) for x in words[name].items()) or "-"
        delta = paired.change(view.delta_m[name])
        rows.append([name, f"{view.rates[name]:g}", delta, *beside, said])
    return Table(
        f"Δm, {view.title}",
        "Mean relative loss against a network for each task in percent, lower is "
        "better, paired over seeds; then minus that of the narrowest hard sharing with "
        "no fewer parameters, and whether it does more than such a one.",
        ["architecture", "rate", "Δm", "beside", "minus that", "does", "tasks"],
        rows,
    )


def change(view: View) -> Table:
    """Each task against a network of its own."""
    rows = [
        [name, *map(paired.change, view.change(name).T)] for name in view.architectures
    ]
    return Table(
        f"Each task, {view.title}",
        f"{view.problem.metrics[0].name.capitalize()} in points, minus that of a "
        "network of its own.",
        ["architecture", *view.problem.tasks],
        rows,
    )
