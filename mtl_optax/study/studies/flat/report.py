"""What the study of flat minima says of all its conditions."""

from collections.abc import Iterator
from itertools import product

import pandas as pd

from mtl_optax.study.data.damaged import MEASURED
from mtl_optax.study.engine.study import PartResult, StudyResult
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
from mtl_optax.study.report.paired import INTERVALS, change, interval, mean_sd
from mtl_optax.study.report.styles import styles
from mtl_optax.study.studies.flat.figures import changes, landscape
from mtl_optax.study.studies.flat.pairs import (
    against_plain,
    against_sam,
    differences,
    reported,
    runs,
    tallies,
)
from mtl_optax.study.studies.flat.rule import (
    CLAIMS,
    RULE,
    Tally,
    beyond_sam,
    sentence,
)

TUNED = (
    "The radius of each perturbed method and condition is the one of its grid with the "
    "best validation accuracy, mean over both tasks and over {seeds}; plain methods "
    "have nothing to choose, which is an advantage of the others. Optimiser "
    "{optimizer}, learning rate {rates}."
)
HEAD = ["metric", "along", "sure +/-", "mean difference", "paper", "verdict"]


def document(result: StudyResult, documents: dict[str, Document]) -> Document:
    """Verdicts on all conditions, and the numbers of each."""
    found = differences(result)
    smoke = [SMOKE] if result.is_quick else []
    rules = [RULE, INTERVALS, _tuned(result.first), MEASURED]
    pages = {name: f"{name}/report.html" for name in documents}
    return Document(
        *(result.study.title, result.study.question),
        summary=[Points(_words(result, found)), *smoke],
        body=[
            *figures((changes, landscape), result),
            *_tables(result, found),
            Details("Rules", [Text(rule) for rule in rules], open=True),
            Links("The conditions one by one:", pages),
        ],
        credits=[result.first.problem.credits],
        files={
            "scores.csv": _scores(result),
            "differences.csv": _differences(result, found),
        },
    )


def _words(result: StudyResult, found: pd.DataFrame) -> list[str]:
    """A sentence a pair, and the statement on joint SAM."""
    methods = result.first.settings.methods
    lines = [sentence(*pair, tallies(found, pair)) for pair in against_plain(methods)]
    beyond = {pair[0]: tallies(found, pair) for pair in against_sam(methods)}
    return [*lines, beyond_sam(beyond)]


def _tuned(first: PartResult) -> str:
    """How the radius was chosen."""
    settings, seeds = first.settings, "the seeds reported"
    if settings.tuning_seeds:
        last = settings.seeds + settings.tuning_seeds - 1
        seeds = f"seeds {settings.seeds} to {last}, which are not reported"
    rates = ", ".join(f"{x:g}" for x in settings.learning_rates)
    return TUNED.format(seeds=seeds, optimizer=settings.optimizer, rates=rates)


def _tables(result: StudyResult, found: pd.DataFrame) -> Iterator[Table]:
    """Scores and differences of each condition, then what all of them say."""
    values, settings, tasks = runs(result), result.first.settings, result.first.tasks
    looks, pairs = styles(settings.methods), against_plain(settings.methods)
    units = {metric.name: str(metric) for metric in result.first.problem.metrics}
    note = f"Mean ± sd over {settings.seeds} seed(s), {settings.steps} steps."
    scores = ["method", "task", *(units[x] for x in CLAIMS), "radius"]
    changed = ["method", "task", *(f"{x} / {y.unit}" for x, y in CLAIMS.items())]
    for name, part in result.parts.items():
        rows = [
            [
                *(method, task),
                *(mean_sd(values[method, x, name, task].to_numpy()) for x in CLAIMS),
                part.chosen(method)[0].more().removeprefix("rho_shared="),
            ]
            for method, task in product(settings.methods, tasks)
        ]
        yield Table(name, note, scores, rows, looks)
        rows = [
            [
                *(pair[0], task),
                *(change(found[(*pair, x, name, task)].to_numpy()) for x in CLAIMS),
            ]
            for pair, task in product(pairs, tasks)
        ]
        if rows:
            against = "F- minus plain, sam minus mean, [interval]."
            yield Table(f"{name}: differences", against, changed, rows, looks)
    for title, chosen in (
        ("F- minus plain, sam minus mean", pairs),
        ("F- minus sam", against_sam(settings.methods)),
    ):
        rows = [
            [pair[0], metric, *_cells(own, metric)]
            for pair in chosen
            for metric, own in tallies(found, pair).items()
        ]
        if rows:
            yield Table("All conditions", f"{title}.", ["method", *HEAD], rows, looks)


def _cells(found: Tally, metric: str) -> list[str]:
    """A row of HEAD: counts, mean with interval, the paper's direction, the word."""
    counts = f"{found.along} of {found.number}", f"{found.sure} / {found.against}"
    return [*counts, change(found.of_seed), CLAIMS[metric].paper, found.word]


def _scores(result: StudyResult) -> pd.DataFrame:
    """scores.csv: means of each metric on the split of its claim."""
    keys = ["part", "method", "candidate", "metric", "task"]
    of_seeds = reported(result).groupby(keys, sort=False)["value"]
    table = of_seeds.agg(seeds="count", mean="mean", sd="std").reset_index()
    return table.rename(columns={"part": "condition"})


def _differences(result: StudyResult, found: pd.DataFrame) -> pd.DataFrame:
    """differences.csv: each pair in each condition, metric and task."""
    methods, rows = result.first.settings.methods, []
    pairs = against_plain(methods) + against_sam(methods)
    for name, pair, metric, task in product(
        *(result.parts, pairs, CLAIMS, result.first.tasks)
    ):
        own = found[(*pair, metric, name, task)].to_numpy()
        bounds = interval(own)[1:3] if len(own) > 1 else ("", "")
        rows.append((name, *pair, metric, task, len(own), own.mean(), *bounds))
    head = ["condition", "method", "other", "metric", "task", "seeds"]
    return pd.DataFrame(rows, columns=[*head, "difference", "t_low", "t_high"])
