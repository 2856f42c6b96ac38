"""Tables that the study of task groups shows beside those of every study."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.groups.halves import KINDS, SGD_RATE, STEPS
from benchmarks.studies.groups.rule import (
    JOINT,
    Found,
    counted,
    found,
)
from mtl_optax.study.engine.study import PartResult, StudyResult
from mtl_optax.study.report import paired, parts
from mtl_optax.study.report.document import Document, Table
from mtl_optax.study.report.summaries import side_by_side

FALLS = (
    "100 times the fall of the log loss on the batch, about percent, in the joint "
    "step; below it, paired, how much more it falls in the step of the task's own half "
    "alone, and in the steps of both halves one after the other (two steps), mean over "
    "both orders. 95 % intervals over seeds. All start from the same parameters, batch "
    "and state of the optimiser, those of the joint run; plain SGD, of rate "
    f"{SGD_RATE:g}, has no state."
)
BLOCKS = "Seeds in which the groups at the end of training are the blocks."


def group_table(result: PartResult) -> Table | None:
    """In how many seeds the blocks are recovered, and what else was chosen."""
    rows = [
        [name, own.seeds, own.late, counted(own.groups, result.tasks)]
        for name, own in found(result.methods, len(result.tasks)).items()
    ]
    if not rows:
        return None
    head = ["method", "seeds with the blocks", "second half", "groups (seeds)"]
    return Table("Groups", "At the end of training.", head, rows)


def mean_decrease(result: PartResult) -> NDArray[np.float64]:
    """Mean over records `[seeds, KINDS, STEPS, T]`, of 100 times the fall of logs."""
    return 100 * result.methods[JOINT].readings["decrease"][:, 0].mean(axis=0)


def decrease_table(result: PartResult) -> Table | None:
    """How far each loss falls in one step on all, and how much further otherwise."""
    if JOINT not in result.methods:
        return None
    values = mean_decrease(result)
    values[:, :, 1:] -= values[:, :, :1]
    rows = [
        [kind, f"{step}{', more' if s else ''}", *map(paired.change, values[:, k, s].T)]
        for k, kind in enumerate(KINDS)
        for s, step in enumerate(STEPS)
    ]
    title = "What one batch does for each loss"
    return Table(title, FALLS, ["optimiser", "step", *result.tasks], rows)


def document(whole: StudyResult, documents: dict[str, Document]) -> Document:
    """Who finds the blocks in which part, and the accuracies, before all else."""
    every = [found(part.methods, len(part.tasks)) for part in whole.parts.values()]

    def cell(own: Found | None) -> str:
        if own is None:
            return "-"
        late = "" if own.late == "-" else f" ({own.late} of the 2nd half)"
        return f"{own.seeds}{late}"

    methods = dict.fromkeys(method for made in every for method in made)
    blocks = [[x, *(cell(made.get(x)) for made in every)] for x in methods]
    accuracy, common = side_by_side(whole), parts.document(whole, documents)
    table = Table("Blocks", BLOCKS, ["method", *whole.parts], blocks, accuracy.looks)
    return common._replace(summary=[*common.summary, table, accuracy])
