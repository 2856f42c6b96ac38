"""The report of a run, or of one beside the runs of its single tasks."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mtl_optax as mtl
from mtl_optax.analysis import palette
from mtl_optax.data.dataset import Dataset, Task
from mtl_optax.data.scan import Scan
from mtl_optax.study.report.document import (
    Details,
    Document,
    Figure,
    Points,
    Table,
    Text,
)
from mtl_optax.study.report.files import as_json
from mtl_optax.study.report.frame import Drawn, grid, png
from mtl_optax.training import kinds, logs
from mtl_optax.training.encoders import DENSE
from mtl_optax.training.run import BEST, LAST, Result, Scores
from mtl_optax.training.settings import Settings

LATE = 10  # epochs at the end whose mean CAGrad, Nash-MTL and FAMO report
CONVENTIONS = {
    "pixels": "Dense metrics weigh every valid pixel of the split alike, as LibMTL's.",
    "images": "Dense metrics are means over pictures of each picture's own, as those "
    "of MTAN's code until November 2020: mIoU is lower by it than in other tables.",
    "batches": "Errors, medians and shares are means over batches of this many "
    "pictures, as in the code of CAGrad, Nash-MTL and FAMO; mIoU and pixel accuracy "
    "are those of the whole split.",
}


class Reported(NamedTuple):
    """What a report is made of."""

    dataset: Dataset
    scan: Scan
    settings: Settings
    result: Result
    single: Mapping[str, Result]  # task -> the run that trained it alone
    command: str


def document(of: Reported) -> Document:
    """Metrics first, then how they came about, then the data and the settings."""
    split = _final(of.dataset)
    summary: list[Any] = [Points([_best(of)])]
    if of.single:
        summary.append(Text(_delta_m_sentence(of, split), "strong"))
    if of.scan.faults:
        number = len(of.scan.faults)
        summary.append(
            Text(f"Bad examples that were left out: {number} (--skip-bad).", "warning")
        )
    body = [
        *(_scores(of, name) for name in of.result.scores[LAST]),
        *_figures(of),
        _data(of),
        *_faults(of),
        Details("Rules", [Text(x) for x in _rules(of)], open=True),
        Details("Settings", [Text(as_json(of.settings.identity()), "code")]),
    ]
    title = f"{of.settings.method} on {of.dataset.name}"
    return Document(title, of.command, summary, body)


def description(dataset: Dataset, scan: Scan) -> list[Any]:
    """What is in the folder, as `train` prints it before it begins."""
    return [
        Points(dataset.notes),
        _examples(scan),
        _shapes(scan),
        _labels(dataset, scan),
    ]


def delta_m(of: Reported, scores: Scores, split: str) -> float:
    """Against the single tasks, whose numbers are those of their last epoch too."""
    names = {task.name: kinds.in_delta_m(task) for task in of.dataset.tasks}
    better = {t.name: kinds.higher_is_better(t) for t in of.dataset.tasks}
    baseline = {t: of.single[t].scores[LAST][split][t] for t in names}
    try:
        return float(
            mtl.delta_m(
                {t: [scores[t][m] for m in own] for t, own in names.items()},
                {t: [baseline[t][m] for m in own] for t, own in names.items()},
                {t: [better[t][m] for m in own] for t, own in names.items()},
            )
        )
    except ValueError:  # a baseline of 0: relative change has no meaning
        return math.nan


def _final(dataset: Dataset) -> str:
    """The split whose numbers are the result: "val" where there is no other."""
    return "test" if "test" in dataset.splits else "val"


def _best(of: Reported) -> str:
    count = of.settings.epochs
    return (
        f"{count} epochs, {of.result.parameters:,} parameters. By the geometric mean "
        f"of validation losses epoch {of.result.best_epoch} was the best."
    )


def _delta_m_sentence(of: Reported, split: str) -> str:
    value = delta_m(of, of.result.scores[LAST][split], split) + 0.0  # no -0.00
    if math.isnan(value):
        return f"Delta-m has no value here: {_without_baseline(of, split)}."
    word = "better" if value < 0 else "worse"
    return (
        f"Delta-m against single-task training {value:+.2f} % on {split} (last epoch; "
        f"lower is better): on average {abs(value):.2f} % {word}."
    )


def _without_baseline(of: Reported, split: str) -> str:
    """Which metrics stand against a relative change."""
    found = []
    for task in of.dataset.tasks:
        own = of.single[task.name].scores[LAST][split][task.name]
        for metric in kinds.in_delta_m(task):
            if not own[metric] > 0:
                found.append(
                    f"{metric} of {task.name} alone is {logs.shown(own[metric])}"
                )
    some = found or ["a metric of this run was not counted"]
    more = f", and {len(some) - 3} more" if len(some) > 3 else ""
    return ", ".join(some[:3]) + more


def _columns(dataset: Dataset) -> list[tuple[Task, str]]:
    return [(t, m) for t in dataset.tasks for m in kinds.higher_is_better(t)]


def _scores(of: Reported, split: str) -> Table:
    """A metric a row: there may be many tasks, and never many runs."""
    kept = [LAST, BEST]
    late = _late(of) if split == "val" else {}
    head = ["task", "metric", "better", *kept]
    head += [f"mean of the last {LATE} epochs"] if late else []
    head += ["single task"] if of.single else []
    rows = []
    for task, metric in _columns(of.dataset):
        higher = kinds.higher_is_better(task)[metric]
        row = [task.name, _named(task, metric), "higher" if higher else "lower"]
        row += [logs.shown(of.result.scores[k][split][task.name][metric]) for k in kept]
        if late:
            row.append(logs.shown(late.get(f"{task.name}/{metric}", math.nan)))
        if of.single:
            own = of.single[task.name].scores[LAST][split][task.name]
            row.append(logs.shown(own[metric]))
        rows.append(row)
    return Table(f"Metrics on {split}", "", head, rows)


def _late(of: Reported) -> dict[str, float]:
    """Means over the last epochs, of runs that are long enough to have such."""
    rows = logs.read(of.result.folder / "epochs.csv")[-LATE:]
    if of.settings.epochs < 2 * LATE:
        return {}
    return {
        name: float(np.mean([x.get(name, math.nan) for x in rows])) for name in rows[0]
    }


def _named(task: Task, metric: str) -> str:
    unit = {"mean angle": "degrees", "median angle": "degrees"}.get(metric)
    if task.kind == "regression" or metric == "AbsErr":
        unit = task.unit or None
    return f"{metric} ({unit})" if unit else metric


def _figures(of: Reported) -> list[Figure]:
    made = []
    for draw in (losses_by_step, weights_by_step, metrics_by_epoch):
        if (picture := png(draw, of)) is not None:
            made.append(Figure(draw.__name__, *picture))
    return made


def losses_by_step(of: Reported) -> Drawn | None:
    """Training losses."""
    return _by_step(of, "loss/", "Loss of each task in training batches.", log=True)


def weights_by_step(of: Reported) -> Drawn | None:
    """Of the tasks, where the method has such."""
    return _by_step(of, "weight/", "Weight of each task in the update.")


def metrics_by_epoch(of: Reported) -> Drawn | None:
    """On validation data; the ruling metric of each task."""
    rows = logs.read(of.result.folder / "epochs.csv")
    chosen = [(t, kinds.in_delta_m(t)[0]) for t in of.dataset.tasks[:MOST]]
    figure, panels = grid(len(chosen), 3.2, 2.4, 3, alike=False)
    epochs = [row["step"] / _steps_an_epoch(of) for row in rows]
    for panel, (task, metric) in zip(panels, chosen, strict=True):
        panel.plot(epochs, [x.get(f"{task.name}/{metric}", math.nan) for x in rows])
        panel.set_title(f"{task.name}: {_named(task, metric)}", fontsize=10)
        panel.set_xlabel("epoch")
    return Drawn(figure, f"On validation data.{_more(of.dataset)}")


MOST = 12  # tasks in a figure; those of CelebA are 40


def _more(dataset: Dataset) -> str:
    left = len(dataset.tasks) - MOST
    return f" The other {left} tasks are in epochs.csv." if left > 0 else ""


def _by_step(
    of: Reported, prefix: str, caption: str, log: bool = False
) -> Drawn | None:
    rows = logs.read(of.result.folder / "steps.csv")
    names = [t for t in of.dataset.names if any(prefix + t in row for row in rows)]
    if not names:
        return None
    figure, (panel,) = grid(1, 8, 3.4, 1)
    for number, name in enumerate(names[:MOST]):
        style = {"color": palette.COLOURS[number % len(palette.COLOURS)]}
        values = [row.get(prefix + name, math.nan) for row in rows]
        panel.plot([row["step"] for row in rows], values, label=name, lw=1, **style)
    if log:
        panel.set_yscale("log")
    panel.set_xlabel("step")
    panel.legend(fontsize=8, ncols=3)
    return Drawn(figure, caption + _more(of.dataset))


def _steps_an_epoch(of: Reported) -> float:
    rows = logs.read(of.result.folder / "epochs.csv")
    return rows[-1]["step"] / of.settings.epochs


def _examples(scan: Scan) -> Table:
    rows = [
        [split, f"{len(part.rows):,}", str(len(part.faults))]
        for split, part in scan.parts()
    ]
    return Table("Examples", "", ["split", "examples", "left out"], rows)


def _shapes(scan: Scan) -> Table:
    """Those of the first split; the others have the same, or the scan says so."""
    _, part = next(scan.parts())
    rows = [
        [name, "×".join(map(str, shape)) or "a number"]
        for name, shape in part.shapes.items()
    ]
    more = [["...", f"{len(rows) - MOST} more like these"]] if len(rows) > MOST else []
    return Table("Shapes", "", ["array", "shape"], [*rows[:MOST], *more])


def _labels(dataset: Dataset, scan: Scan) -> Table:
    rows = []
    by_name = {task.name: task for task in dataset.tasks}
    for split, part in scan.parts():
        for name, labels in part.labels.items():
            task = by_name[name]
            low, high = (_in_unit(task, x) for x in (labels.low, labels.high))
            none = "" if labels.known else "none"
            rows.append(
                [
                    name,
                    split,
                    task.kind,
                    none or f"{low:.4g} to {high:.4g}",
                    f"{100 * labels.share_missing:.2f} %",
                    str(labels.without),
                ]
            )
    head = ["task", "split", "kind", "labels", "missing", "examples without"]
    return Table("Labels", "", head, rows)


def _in_unit(task: Task, value: float) -> float:
    return value * task.sd + task.mean if task.kind == "regression" else value


def _data(of: Reported) -> Details:
    return Details("Data", description(of.dataset, of.scan))


def _faults(of: Reported) -> list[Details]:
    if not of.scan.faults:
        return []
    lines = [str(fault) for fault in of.scan.faults]
    return [Details("Examples that were left out", [Points(lines)])]


def _rules(of: Reported) -> Sequence[str]:
    own = of.settings
    dense = any(task.kind in DENSE for task in of.dataset.tasks)
    way = own.convention.partition(":")[0]
    rules = [
        "“last” is the state after the last epoch; “best” that of the epoch with the "
        "lowest geometric mean of validation losses, which has no unit.",
        *([f"{own.convention}: {CONVENTIONS[way]}"] if dense else []),
        "A metric is a dash where no label was counted; a class in neither labels nor "
        "predictions is left out of means over classes.",
    ]
    if "test" not in of.dataset.splits:
        rules.append(
            "There is no test split: “best” was chosen on the data that it is reported "
            "on, and is the better for it. Compare “last”."
        )
    if of.single:
        rules.append(
            "Single tasks were trained with the same encoder, settings and number of "
            "epochs, hard sharing of one task; Delta-m is the mean relative change of "
            "all metrics that stand for a task, in percent."
        )
    return rules


def write(of: Reported) -> Path:
    """The page, in the folder of the run."""
    from mtl_optax.study.report import html

    page = of.result.folder / "report.html"
    page.write_text(html.page(document(of)), encoding="utf-8")
    return page
