"""What the study says of all optimisers."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.studies.optimizers.claim import CLAIM, measured
from benchmarks.studies.optimizers.figures import fronts, gaps
from benchmarks.studies.optimizers.fronts import (
    ADAM,
    RULE,
    SGD,
    Condition,
    conditions,
    gains,
    shares,
)
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import claims, parts
from mtl_optax.study.report.document import (
    Details,
    Document,
    Links,
    Points,
    Table,
    Text,
    figures,
)
from mtl_optax.study.report.paired import change, mean_sd

WORDS = (
    "{}: of the front of Adam and SGD, Adam's runs are {:.0f} % at all rates and "
    "{:.0f} % at tuned ones; tuned Adam minus tuned SGD is {} points in the mean over "
    "methods and tasks."
)


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """The claim, who holds the front, and what separates tuned runs."""
    found, every = measured(result), conditions(result)
    common = parts.document(result, documents)
    return common._replace(
        summary=[Points(list(map(_words, every))), *common.summary[1:]],
        body=[
            claims.shown(CLAIM, found),
            *figures((fronts, gaps), every),
            _front(every),
            *map(_tuned, every),
            Details("Rules", [Text(RULE)], open=True),
            Links("The parts:", {x: f"{x}/report.html" for x in documents}),
        ],
        files=claims.files(CLAIM, found) | {"tuned.csv": _csv(every)},
    )


def _words(condition: Condition) -> str:
    pair = [shares(condition, (ADAM, SGD), x)[ADAM].mean() for x in (False, True)]
    gain = np.mean(list(gains(condition, ADAM, SGD).values()), axis=0)
    return WORDS.format(condition.name, *pair, change(gain))


def _front(every: list[Condition]) -> Table:
    """Shares of the front, of two optimisers and of all."""
    rows = []
    for condition in every:
        for tuned, what in ((False, "all rates"), (True, "tuned")):
            two = shares(condition, (ADAM, SGD), tuned)
            cells = [mean_sd(own, 0) for own in two.values()]
            if tuned:
                of_all = shares(condition, tuple(condition.parts), tuned)
                cells += [mean_sd(own, 0) for own in of_all.values()]
            rows.append([condition.name, what, *cells])
    names = list(every[0].parts)
    width = 4 + len(names)
    return Table(
        "Shares of the front in percent",
        "Mean ± sd over seeds: of Adam's and SGD's runs alone, then of the tuned runs "
        "of all three. Muon has fewer rates, so all rates leave it out.",
        ["condition", "runs", ADAM, SGD, *(f"{x} of all" for x in names)],
        [row + [""] * (width - len(row)) for row in rows],
    )


def _tuned(condition: Condition) -> Table:
    """A row a method: its rates, scores and differences."""
    names = list(condition.parts)
    rows = []
    for m, method in enumerate(condition.first.methods):
        row = [method]
        for name, own in condition.parts.items():
            accuracy = 100 - condition.errors(name, tuned=True)[m, 0].mean(axis=-1)
            row.append(f"{mean_sd(accuracy)} ({own.chosen(method)[0]})")
        row += [change(gains(condition, x, y)[method]) for x, y in _pairs(names)]
        rows.append(row)
    return Table(
        f"{condition.name}: tuned runs",
        "Test accuracy in percent, mean over tasks, ± sd over seeds (the rate); then "
        "differences in points, paired over seeds, with 95 % intervals.",
        ["method", *names, *(f"{x} minus {y}" for x, y in _pairs(names))],
        rows,
    )


def _pairs(names: list[str]) -> Iterator[tuple[str, str]]:
    """Adam against SGD, and the others against Adam."""
    yield ADAM, SGD
    yield from ((name, ADAM) for name in names if name not in (ADAM, SGD))


def _csv(every: list[Condition]) -> pd.DataFrame:
    """A row a condition, pair of optimisers, method and seed."""
    rows = [
        (condition.name, f"{ours} minus {theirs}", method, seed, value)
        for condition in every
        for ours, theirs in _pairs(list(condition.parts))
        for method, own in gains(condition, ours, theirs).items()
        for seed, value in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["condition", "pair", "method", "seed", "points"])
