"""What the study of flat minima says of all its conditions."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.studies.flat.figures import changes, landscape
from benchmarks.studies.flat.pairs import (
    against_flat,
    against_plain,
    against_sam,
    differences,
    runs,
    tallies,
)
from benchmarks.studies.flat.rule import CLAIMS, PLAIN, RULE, SAM, beyond_sam, sentence
from mtl_optax.study.data.damaged import MEASURED
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import document as blocks
from mtl_optax.study.report import parts
from mtl_optax.study.report.document import Document, Table
from mtl_optax.study.report.paired import INTERVALS, change, interval, mean_sd
from mtl_optax.study.report.styles import styles

TUNED = (
    "The radius of each perturbed method and condition (with S- methods also the share "
    "beta of a task's own part) is the one of its grid with the "
    "best validation accuracy, mean over both tasks and over {seeds}; plain methods "
    "have nothing to choose, which is an advantage of the others. Optimiser "
    "{optimizer}, learning rate {rates}."
)
TO_PLAIN = "F- and S- minus plain, sam minus mean, [95 % interval]"
TO_FLAT = "S- minus F-, [95 % interval]"
TO_SAM = "F- and S- minus sam, [95 % interval]"


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """Verdicts on all conditions, and the numbers of each."""
    values, found = runs(result), differences(result)
    rules = [RULE, INTERVALS, _tuned(result.first.settings), MEASURED]
    pages = {name: f"{name}/report.html" for name in documents}
    common = parts.document(result, documents)
    return common._replace(
        summary=[blocks.Points(_words(found)), *common.summary[1:]],
        body=[
            *blocks.figures((changes, landscape), result),
            *_tables(result, values, found),
            *_counts(result, found),
            blocks.Details("Rules", [blocks.Text(x) for x in rules], open=True),
            blocks.Links("The conditions one by one:", pages),
        ],
        files={"scores.csv": _means(values), "differences.csv": _intervals(found)},
    )


def _words(found: pd.DataFrame) -> list[str]:
    """A sentence a pair, and the statement on joint SAM."""
    every = tallies(found)
    lines = [sentence(*pair, own) for pair, own in every.items() if pair[1] != SAM]
    return [*lines, beyond_sam({x: own for (x, y), own in every.items() if y == SAM})]


def _tuned(settings: Settings) -> str:
    """How the radius was chosen."""
    seeds, rates = "the seeds reported", map("{:g}".format, settings.learning_rates)
    if settings.tuning_seeds:
        last = settings.seeds + settings.tuning_seeds - 1
        seeds = f"seeds {settings.seeds} to {last}, which are not reported"
    optimizer = settings.optimizer
    return TUNED.format(seeds=seeds, optimizer=optimizer, rates=", ".join(rates))


def _tables(
    result: StudyResult, values: pd.DataFrame, found: pd.DataFrame
) -> Iterator[Table]:
    """Scores and differences of each condition."""
    settings, looks = result.first.settings, styles(result.first.methods)
    note = f"Mean ± sd over {settings.seeds} seed(s), {settings.steps} steps."
    units = {x.name: str(x) for x in result.first.problem.metrics}
    head = ["method", "task", "radius", *(units[x] for x in CLAIMS)]
    changed = ["method", "task", *(f"{x} / {y.unit}" for x, y in CLAIMS.items())]
    to_plain = found[found["method"].map(PLAIN) == found["other"]]
    for name in result.parts:
        rows = _by_metric(values, name, ["method", "task", "radius"], mean_sd)
        yield Table(name, note, head, rows, looks)
        if rows := _by_metric(to_plain, name, ["method", "task"], change):
            yield Table(f"{name}: {TO_PLAIN}", "", changed, rows, looks)


def _by_metric(
    table: pd.DataFrame, name: str, keys: list[str], say: Callable[[NDArray], str]
) -> list[list[str]]:
    """Of a condition: a row a key, a column a metric."""
    own = table[table["condition"] == name].groupby([*keys, "metric"], sort=False)
    cells = own["value"].agg(lambda x: say(x.to_numpy()))
    return cells.unstack("metric", sort=False).reset_index().to_numpy().tolist()


def _counts(result: StudyResult, found: pd.DataFrame) -> Iterator[Table]:
    """What all conditions say."""
    every, looks = tallies(found), styles(result.first.methods)
    head = ["method", "metric", "along", "sure +/-", "mean difference", "paper"]
    methods = result.first.settings.methods
    kinds = {TO_PLAIN: against_plain, TO_FLAT: against_flat, TO_SAM: against_sam}
    for title, pairs in kinds.items():
        rows = [
            [
                *(method, metric, f"{own.along} of {own.number}"),
                *(f"{own.sure} / {own.against}", change(own.of_seed)),
                *(CLAIMS[metric].paper, own.word),
            ]
            for method, other in pairs(methods)
            for metric, own in every.get((method, other), {}).items()
        ]
        if rows:
            yield Table(f"All conditions: {title}", "", [*head, "verdict"], rows, looks)


def _means(values: pd.DataFrame) -> pd.DataFrame:
    """scores.csv: means of each metric on the split of its claim."""
    keys = ["condition", "method", "radius", "metric", "task"]
    of_seeds = values.groupby(keys, sort=False)["value"]
    return of_seeds.agg(seeds="count", mean="mean", sd="std").reset_index()


def _intervals(found: pd.DataFrame) -> pd.DataFrame:
    """differences.csv: each pair in each condition, metric and task."""

    def bound(index: int) -> Callable[[pd.Series], Any]:
        return lambda x: interval(x.to_numpy())[index] if len(x) > 1 else np.nan

    keys = ["condition", "method", "other", "metric", "task"]
    of_seeds = found.groupby(keys, sort=False)["value"]
    numbers = {"seeds": "count", "difference": "mean"}
    return of_seeds.agg(**numbers, t_low=bound(1), t_high=bound(2)).reset_index()
