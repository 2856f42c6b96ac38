"""The document of one part: verdicts, scores, intervals, figures, rules, times."""

from typing import Any

from mtl_optax.study.engine.study import MethodResult, PartResult
from mtl_optax.study.engine.train import WORKERS
from mtl_optax.study.report import files
from mtl_optax.study.report.document import (
    SMOKE,
    Details,
    Document,
    Points,
    Table,
    Text,
    figures,
)
from mtl_optax.study.report.paired import (
    CONFIDENCE,
    against_baseline,
    bracket,
    mean_sd,
)
from mtl_optax.study.report.styles import styles


def document(result: PartResult, configuration: dict[str, Any]) -> Document:
    """The report of a part, with `files.config` of it."""
    part, judgement = result.part, result.judgement
    summary = [
        Points(list(judgement.sentences.values())),
        Text(judgement.statement, "strong"),
        *([SMOKE] if result.settings.quick else []),
    ]
    rules = [*part.rules, f"{result.problem.about} {_rates(result)}"]
    body = [
        scores(result),
        *intervals(result),
        *(table for make in part.tables if (table := make(result)) is not None),
        *figures(part.figures, result),
        Details("Rules", [Text(f"{x} ".strip()) for x in rules], open=True),
        _times(result),
        Details(
            "Configuration, also in config.json",
            [Text(files.as_json(configuration), "code")],
        ),
    ]
    return Document(
        *(part.title, part.question, summary, body),
        credits=[result.problem.credits],
        files=files.of_part(result),
    )


def scores(result: PartResult) -> Table:
    """Mean ± sd over seeds, for each task at each scale, and the verdict."""
    settings, metric = result.settings, result.problem.metrics[0]
    note = f"Mean ± sd over {settings.seeds} seed(s), {settings.steps} steps"
    if metric.unit:
        note += f", in {metric.unit.replace('%', 'percent')}"
    if len(result.part.scales) > 1:
        note += f"; × is the factor on the loss of {result.tasks[0]}"
    rows = [
        [method, *cells(own), result.judgement.verdicts[method]]
        for method, own in result.methods.items()
    ]
    return Table(
        f"{result.problem.reported_on.capitalize()} {metric.name}",
        f"{note}.",
        ["method", *columns(result), "verdict"],
        rows,
        styles(result.methods),
    )


def intervals(result: PartResult) -> list[Table]:
    """Each method against the baseline, if there are intervals."""
    rows = [
        [method, *(bracket(*x) for x in zip(own.low.ravel(), own.high.ravel()))]  # noqa: B905
        for method, own in against_baseline(result).items()
    ]
    if not rows:
        return []
    note = "Student's t; also in summary.csv, the bootstrap beside it."
    looks = styles(result.methods)
    return [Table(title(result), note, ["method", *columns(result)], rows, looks)]


def title(result: PartResult) -> str:
    """Over the table of intervals, and under the figure."""
    metric = result.problem.metrics[0]
    unit = f" in {metric.points}" if metric.unit else ""
    return (
        f"Difference from {result.part.baseline}, {metric.name}{unit}: "
        f"{100 * CONFIDENCE:g} % intervals, paired over {result.settings.seeds} seeds"
    )


def columns(result: PartResult) -> list[str]:
    """Heads of `cells`."""
    scales = result.part.scales
    if len(scales) == 1 and scales[0] == 1:
        return list(result.tasks)
    return [f"{task} ×{scale}" for scale in scales for task in result.tasks]


def cells(own: MethodResult) -> list[str]:
    """The score as "mean ± sd" for each scale and task."""
    return [mean_sd(runs, own.metric.digits) for scale in own.score for runs in scale.T]


def _times(result: PartResult) -> Table:
    """Seconds a method, compilation apart; what was chosen, if there was a choice."""
    head = ["method", "compile", "train"]
    choosing = result.settings.choosing
    if choosing:
        several = len(result.part.scales) > 1
        head += [f"chosen{f' ×{s}' if several else ''}" for s in result.part.scales]
    rows = [
        [
            *(method, f"{own.compile_seconds:.1f}", f"{own.run_seconds:.1f}"),
            *(map(str, result.chosen(method)) if choosing else ()),
        ]
        for method, own in result.methods.items()
    ]
    note = f"{WORKERS} at a time share the machine."
    return Table("Seconds a method", note, head, rows, styles(result.methods))


def _rates(result: PartResult) -> str:
    settings, problem = result.settings, result.problem
    falls = " and falls to 0 on a cosine" if settings.schedule == "cosine" else ""
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    text = f"The optimiser is {settings.optimizer}; its learning rate is "
    last = "The last parameters count."
    if len(settings.learning_rates) == 1:
        return f"{text}{rates}{falls}. {last}"
    where = {"val": "validation"}.get(problem.chosen_on, problem.chosen_on)
    first, number = settings.seeds, settings.tuning_seeds
    whose = f"seeds {first} to {first + number - 1}" if number else "seeds"
    return (
        f"{text}one of {rates}{falls}: for each method and scale the one with the best "
        f"{where} {problem.metrics[0].name}, mean over {whose} and tasks; see "
        f"the table below. All are in metrics.csv. {last}"
    )
