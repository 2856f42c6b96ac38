"""What the study shows: delta by family and task, accuracies, and a picture of both."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.studies.corruptions.problem import at
from benchmarks.studies.corruptions.rule import delta
from mtl_optax.study.data.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.frame import Drawn, grid
from mtl_optax.study.report.paired import change, interval
from mtl_optax.study.report.styles import PALETTE, styles

CAPTION = (
    f"delta of {BASELINE} against {SINGLE_TASK}, mean over severities, with 95 % "
    f"intervals over seeds: below 0 {BASELINE} keeps more of its clean accuracy. A "
    "colour a family."
)


def of_family(values: NDArray, family: str) -> NDArray:
    """Mean over the corruptions of a family and all severities, `[seeds, T]`."""
    members = [x.family == family for x in CORRUPTIONS.values()]
    return values[members].mean(axis=(0, 1))


def by_family(result: PartResult) -> Table | None:
    """Delta with its interval, a row a family, of the plain sum."""
    found = _delta(result)
    if found is None:
        return None
    rows = []
    for family in (*FAMILIES, "all"):
        own = found.mean(axis=(0, 1)) if family == "all" else of_family(found, family)
        each = [*own.T, own.mean(axis=-1)]
        rows.append([family, *map(change, each)])
    note = "In percent, with 95 % intervals over seeds; below 0: more robust jointly."
    head = ["corruptions", *result.tasks, "mean"]
    return Table(f"Delta of {BASELINE} against {SINGLE_TASK}", note, head, rows)


def accuracy_by_family(result: PartResult) -> Table:
    """With heads as they were and trained again: mean over seeds, in percent."""
    rows = []
    for method, own in result.methods.items():
        for family in (None, *FAMILIES):
            names = [n for n, x in CORRUPTIONS.items() if x.family == family]
            where = [at(n, s) for n in names for s in SEVERITIES] or ["test"]
            for metric in ("accuracy", "retuned"):
                found = [own.metrics[x][metric][own.chosen[0], 0] for x in where]
                cells = [f"{x:.1f}" for x in np.mean(found, axis=(0, 1))]
                rows.append([method, family or "clean", metric, *cells])
    note = "accuracy: heads of clean images. retuned: trained again on corrupted ones."
    head = ["method", "images", "heads", *result.tasks]
    return Table("Accuracy / %", note, head, rows, styles(result.methods))


def transfer(result: PartResult) -> Drawn | None:
    """Delta by corruption, a panel a task."""
    found = _delta(result)
    if found is None:
        return None
    tasks, names = result.tasks, list(CORRUPTIONS)
    figure, axes = grid(len(tasks), 2.6, 4.2, columns=len(tasks), alike=True)
    for t, ax in enumerate(axes):
        ax.axvline(0, color="black", lw=1)
        for row, name in enumerate(names):
            own = found[row, :, :, t].mean(axis=0)
            mean, low, high = _bar(own)
            colour = PALETTE[FAMILIES.index(CORRUPTIONS[name].family)]
            bar = [[mean - low], [high - mean]]
            ax.errorbar(mean, row, xerr=bar, fmt="o", color=colour, ms=4, capsize=2)
        ax.set(title=tasks[t])
    axes[0].set_yticks(range(len(names)), [x.replace("_", " ") for x in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel("delta / % of the clean accuracy", size="medium")
    return Drawn(figure, CAPTION)


def _bar(own: NDArray) -> tuple[float, float, float]:
    mean = float(own.mean())
    if len(own) < 2:
        return mean, mean, mean
    low, high = (float(x) for x in interval(own)[1:3])
    return mean, low, high


def files(result: PartResult) -> dict[str, pd.DataFrame]:
    """delta.csv: a row a corruption, severity and task."""
    found = _delta(result)
    if found is None:
        return {}
    rows = [
        (CORRUPTIONS[name].family, name, severity, task, *map("{:.3f}".format, numbers))
        for c, name in enumerate(CORRUPTIONS)
        for s, severity in enumerate(SEVERITIES)
        for t, task in enumerate(result.tasks)
        for numbers in [_bar(found[c, s, :, t])]
    ]
    names = ["family", "corruption", "severity", "task", "delta", "low", "high"]
    return {"delta.csv": pd.DataFrame(rows, columns=names)}


def _delta(result: PartResult) -> NDArray[np.float64] | None:
    if not {BASELINE, SINGLE_TASK} <= set(result.methods):
        return None
    return delta(result.methods[BASELINE], result.methods[SINGLE_TASK])
