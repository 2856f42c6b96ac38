"""What the study says of all its parts."""

from typing import Any

import pandas as pd

from benchmarks.studies.conflicts.claim import CLAIM, measured
from benchmarks.studies.conflicts.figures import by_epoch, histograms
from benchmarks.studies.conflicts.pairs import (
    LABELS,
    SAMPLES,
    STATISTICS,
    TASKS,
    averaged,
    epochs,
    kinds,
    null,
    statistics,
)
from benchmarks.studies.conflicts.rule import RULE
from mtl_optax.study.engine.study import PartResult, StudyResult
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
from mtl_optax.study.report.paired import CONFIDENCE, change, mean_sd

RANDOM = "random vectors"
WORDS = (
    "{}: the sd of cosines is {:.3f} between tasks, {:.3f} between samples, and {:.4f} "
    "between random vectors; magnitude similarity {:.2f} and {:.2f}."
)


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """The claim, distributions, and the statistics of every kind of pair."""
    found, runs = measured(result), _runs(result)
    common = parts.document(result, documents)
    rules = [RULE, result.first.problem.about]
    return common._replace(
        summary=[Points(_words(runs)), *common.summary[1:]],
        body=[
            claims.shown(CLAIM, found),
            *figures((histograms, by_epoch), result),
            _means(runs),
            _differences(runs),
            Details("Rules", [Text(x) for x in rules], open=True),
            Links("The parts:", {x: f"{x}/report.html" for x in documents}),
        ],
        files=claims.files(CLAIM, found) | {"pairs.csv": runs.reset_index()},
    )


def _runs(result: StudyResult) -> pd.DataFrame:
    """A row a part, scale, kind of pairs and seed, a column a statistic."""
    tables: dict[Any, pd.DataFrame] = {}
    for name, part in result.parts.items():
        random = null(part.problem.facts["shared_parameters"])
        for at, scale in enumerate(part.part.scales):
            every = {LABELS[x]: own for x, own in kinds(part, at).items()}
            for x, own in averaged(part, at).items():
                every[_over(x)] = own
            for label, own in every.items():
                tables[name, scale, label] = _table(own, part)
        tables[name, part.part.scales[0], RANDOM] = _table(random, part)
    return pd.concat(tables, names=["part", "scale", "pairs", "seed"])


def _over(kind: str) -> str:
    return {
        TASKS: "between tasks, averaged over samples",
        SAMPLES: "between samples, summed over tasks",
    }[kind]


def _table(pairs: Any, part: PartResult) -> pd.DataFrame:
    own = pd.DataFrame(statistics(pairs, epochs(part)))
    own.index.name = "seed"
    return own


def _words(runs: pd.DataFrame) -> list[str]:
    lines = []
    random = runs["spread"].xs(RANDOM, level="pairs").groupby(level="part").mean()
    for (part, scale), own in runs.groupby(level=["part", "scale"], sort=False):
        of_kind = own.groupby(level="pairs").mean()
        pair = [of_kind.loc[LABELS[x]] for x in (TASKS, SAMPLES)]
        name = part if scale == 1 else f"{part} ×{scale}"
        cosines = [x["spread"] for x in pair]
        sizes = [x["magnitude"] for x in pair]
        lines.append(WORDS.format(name, *cosines, random.loc[part], *sizes))
    return lines


def _means(runs: pd.DataFrame) -> Table:
    """A row a kind of pairs."""
    rows = []
    for key, own in runs.groupby(level=["part", "scale", "pairs"], sort=False):
        part, scale, label = key
        cells = [
            mean_sd(own[x].to_numpy(), 1 if "%" in title else 3)
            for x, title in STATISTICS.items()
        ]
        rows.append(
            [f"{part} ×{scale}", label, *(x.replace("nan", "-") for x in cells)]
        )
    return Table(
        "Pairs of gradients",
        "Mean ± sd over seeds; × is the factor on the first loss.",
        ["part", "pairs", *STATISTICS.values()],
        rows,
    )


def _differences(runs: pd.DataFrame) -> Table:
    """Between samples minus between tasks, paired."""
    rows = []
    labels = [x for x in LABELS.values() if x != LABELS[TASKS]]
    for (part, scale), own in runs.groupby(level=["part", "scale"], sort=False):
        of_kind = own.droplevel(["part", "scale"])
        present = of_kind.index.unique("pairs")
        base = of_kind.loc[LABELS[TASKS]]
        for label in (x for x in labels if x in present):
            gap = of_kind.loc[label] - base
            cells = [change(gap[x].to_numpy()) for x in STATISTICS]
            rows.append([f"{part} ×{scale}", label, *cells])
    return Table(
        "Minus pairs between tasks",
        f"Paired over seeds, with {100 * CONFIDENCE:g} % intervals.",
        ["part", "pairs", *STATISTICS.values()],
        rows,
    )
