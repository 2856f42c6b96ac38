"""What the terminal shows: progress while methods train, then tables and verdicts."""

from typing import Any

from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study import intervals
from mtl_optax.study.compare import Results, Shown
from mtl_optax.study.runner import WORKERS

# Narrow enough that the accuracies fit into 80 columns.
LAYOUT: Any = {"box": box.SIMPLE, "padding": (0, 1, 0, 0), "pad_edge": False}


def show(console: Console, results: Results) -> None:
    """Scores, intervals, times, verdicts and the statement on all."""
    _print(console, score_title(results), score_table(results))
    compared = intervals.against_baseline(results)
    if compared:
        head = ["method", *columns(results.study.scales, results.tasks)]
        rows = [(method, intervals.cells(x)) for method, x in compared.items()]
        _print(console, intervals.title(results), plain(head, rows, "right"))
    for make in results.study.tables:
        if (shown := make(results)) is not None:
            show_table(console, shown)
    show_times_and_words(console, results)


def show_table(console: Console, shown: Shown) -> None:
    """A table with its title and note."""
    title = f"{shown.title}. {shown.note}"
    _print(console, title, plain(shown.head, shown.rows))


def show_times_and_words(console: Console, results: Results) -> None:
    """What every study shows in the end."""
    title = f"Seconds a method; {WORKERS} at a time share the machine"
    _print(console, title, time_table(results))
    for sentence in results.judgement.sentences.values():
        console.print(Text(sentence))
    console.print(Text(results.judgement.statement))
    if results.settings.quick:
        console.print(SMOKE, highlight=False)


SMOKE = (
    "This was a smoke run (--quick): too few seeds and steps for conclusions. "
    "The study itself is the same command without --quick."
)


def _print(console: Console, title: str, table: Table) -> None:
    """The title as wide as the screen: over a narrow table it would be folded."""
    console.print(Text(title))
    console.print(table)


def score_title(results: Results) -> str:
    """Of `score_table`."""
    settings, metric = results.settings, results.problem.metrics[0]
    unit = f" in {metric.unit}" if metric.unit else ""
    title = (
        f"{results.problem.reported_on.capitalize()} {metric.name}{unit}, mean ± sd "
        f"over {settings.seeds} seed(s), {settings.steps} steps"
    )
    if len(results.study.scales) > 1:
        title += f";\n× is the factor on the loss of {results.tasks[0]}"
    return title


def score_table(results: Results) -> Table:
    """Mean ± sd over seeds, for each task at each scale."""
    table = Table(**LAYOUT)
    table.add_column("method", no_wrap=True)
    for name in columns(results.study.scales, results.tasks):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for method, outcome in results.outcomes.items():
        word = results.judgement.verdicts[method]
        table.add_row(method, *cells(outcome.score), word)
    return table


def time_table(results: Results) -> Table:
    """Seconds a method took, compilation apart; chosen rates if there was a choice."""
    rows = [(method, time_cells(results, method)) for method in results.outcomes]
    return plain(["method", *time_columns(results)], rows, "right")


def plain(
    head: list[str], rows: list[tuple[str, list[str]]], justify: Any = "left"
) -> Table:
    """A row is a name and cells, as in `page.table`."""
    table = Table(**LAYOUT)
    for name in head:
        first = name == head[0]
        table.add_column(name, justify="left" if first else justify, no_wrap=first)
    for name, own in rows:
        table.add_row(name, *map(Text, own))
    return table


def columns(scales: tuple[int, ...], tasks: tuple[str, ...]) -> list[str]:
    """Heads of `cells`."""
    if len(scales) == 1:
        return list(tasks)
    return [f"{task} ×{scale}" for scale in scales for task in tasks]


def time_columns(results: Results) -> list[str]:
    """Heads of `time_cells`."""
    names = ["compile", "train"]
    if not results.settings.choosing:
        return names
    if len(results.study.scales) == 1:
        return [*names, "chosen rate"]
    return [*names, *(f"chosen rate ×{scale}" for scale in results.study.scales)]


def time_cells(results: Results, method: str) -> list[str]:
    """Seconds, then the chosen rate of each scale, and what else was chosen."""
    outcome = results.outcomes[method]
    times = [f"{outcome.compile_seconds:.1f}", f"{outcome.run_seconds:.1f}"]
    if results.settings.choosing:
        times += [str(candidate) for candidate in results.chosen(method)]
    return times


def cells(score: NDArray) -> list[str]:
    """`[scales, seeds, T]` as "mean ± sd" for each scale and task."""
    if score.shape[1] == 1:
        return [f"{m:.1f}" for m in score.ravel()]
    mean, sd, _ = mean_and_sd(score, axis=1)
    return [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean.flat, sd.flat, strict=True)]
