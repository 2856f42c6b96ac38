"""What the study of towers says of all widths and conditions."""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from benchmarks.studies.towers.figures import fronts, losses_by_width, mended
from benchmarks.studies.towers.rule import FRONT_RULE, PLAIN, RULE, Front, front
from benchmarks.studies.towers.runs import FACTORS, FRONT, chosen, minus_plain
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report import document as blocks
from mtl_optax.study.report import parts
from mtl_optax.study.report.document import Document, Table
from mtl_optax.study.report.paired import CONFIDENCE, change, mean_sd

UNITS = "Losses and their gap times 100, accuracy in percent"
WIDE = (
    "{}: the test loss of towers of width {}, times 100, changes by {}; auxiliary "
    "towers beside them change it by {}, and accuracy by {} points."
)
MOVED = (
    f"{FRONT}: auxiliary towers change the hypervolume by {{}} percent of the square."
)


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """Verdicts, figures and tables of all widths, and of the front."""
    runs = chosen(result)
    lines, tables = _words(runs * FACTORS), [*_tables(runs * FACTORS)]
    if FRONT in result.parts:
        found = front(result.parts[FRONT])
        tables.append(_front(found, result.parts[FRONT].problem.facts["tower_width"]))
        if found.chosen is not None:
            lines.append(MOVED.format(change(found.chosen - found.volume[0])))
    rules = [RULE, FRONT_RULE, result.first.problem.about]
    pages = {name: f"{name}/report.html" for name in documents}
    common = parts.document(result, documents)
    return common._replace(
        summary=[blocks.Points(lines), *common.summary[1:]],
        body=[
            *blocks.figures((losses_by_width, mended, fronts), result),
            *tables,
            blocks.Details("Rules", [blocks.Text(x) for x in rules], open=True),
            blocks.Links("The parts:", pages),
        ],
        files={"runs.csv": runs.reset_index()},
    )


def _words(runs: pd.DataFrame) -> list[str]:
    """Whether width harms, and whether auxiliary towers mend it."""
    lines = []
    for condition, own in runs.groupby(level="condition", sort=False):
        plain = own["test loss"].xs(PLAIN, level="method")
        by_width = plain.groupby(level=["width", "seed"]).mean().unstack("width")
        *narrow, width = by_width
        moved = minus_plain(own).xs(width, level="width").groupby(level="seed").mean()
        wider = [
            f"{change((by_width[width] - by_width[x]).to_numpy())} over {x}"
            for x in narrow
        ]
        both = [change(moved[x].to_numpy()) for x in ("test loss", "accuracy")]
        lines.append(WIDE.format(condition, width, ", ".join(wider), *both))
    return lines


def _tables(runs: pd.DataFrame) -> Iterator[Table]:
    """Means and differences of each condition."""
    minus, seeds = minus_plain(runs), len(runs.index.unique("seed"))
    mean = f"{UNITS}; mean ± sd over {seeds} seeds."
    paired = f"{UNITS}; paired, with {100 * CONFIDENCE:g} % intervals."
    for condition in runs.index.unique("condition"):
        means, say = runs.loc[condition], partial(mean_sd, digits=2)
        yield _table(f"{condition}: means", mean, means, "method", say)
        title = f"{condition}: with auxiliary towers minus without"
        yield _table(title, paired, minus.loc[condition], "gamma", change)


def _table(
    title: str, note: str, numbers: pd.DataFrame, key: str, say: Callable[..., str]
) -> Table:
    """A row a width, key and task, a column a measure."""
    of_seeds = numbers.groupby(level=["width", key, "task"], sort=False)
    cells = of_seeds.agg(lambda x: say(x.to_numpy())).reset_index().astype(str)
    return Table(title, note, [*cells], cells.to_numpy().tolist())


def _front(found: Front, width: int) -> Table:
    """The hypervolume of each gamma, and of the one chosen."""
    plain, *others = found.volume
    names = [f"{gamma:g}" for gamma in found.gammas[1:]]
    tried = dict(zip(names, others, strict=True))
    if found.chosen is not None:
        tried["chosen"] = found.chosen
    rows = [
        [name, f"{own.mean():.2f}", change(own - plain)] for name, own in tried.items()
    ]
    return Table(
        f"{FRONT}: hypervolume of both test losses, towers of width {width}",
        "In percent of the square below a uniform guess.",
        ["gamma", "hypervolume", "minus without"],
        [["0", f"{plain.mean():.2f}", ""], *rows],
    )
