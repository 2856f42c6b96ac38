"""What the terminal shows: progress while methods train, then tables and verdicts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mtl_optax.study.runner import Tick
from mtl_optax.study.stress import SCALES, Results, Settings

# Narrow enough that the accuracies fit into 80 columns.
LAYOUT: Any = {"box": box.SIMPLE, "padding": (0, 1, 0, 0), "pad_edge": False}


@contextmanager
def progress(console: Console, settings: Settings) -> Iterator[Tick]:
    """One bar a method on a terminal, one line an event in a log."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.fields[stage]:>10}"),
        TextColumn("{task.completed:>5.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        rows = {
            method: bars.add_task(
                method, total=settings.steps, stage="waiting", start=False
            )
            for method in settings.methods
        }

        def tick(method: str, stage: str, done: int) -> None:
            if stage == "compiling":
                bars.start_task(rows[method])
            finished = done == settings.steps
            stage = "done" if finished else stage
            bars.update(rows[method], completed=done, stage=stage)
            if not console.is_terminal and (done == 0 or finished):
                console.print(f"{method}: {stage}")

        yield tick


def show(console: Console, results: Results) -> None:
    """Accuracies, times, verdicts and the null."""
    settings = results.settings
    console.print(accuracy_table(results))
    console.print(time_table(results))
    for outcome in results.outcomes.values():
        console.print(outcome.sentence, highlight=False)
    console.print(results.null, highlight=False)
    if settings.quick:
        console.print(SMOKE, highlight=False)


SMOKE = (
    "This was a smoke run (--quick): too few seeds and steps for conclusions. "
    "The study itself is `mtl-optax study`."
)


def accuracy_table(results: Results) -> Table:
    """Mean ± sd over seeds, for each task at each scale."""
    settings = results.settings
    table = Table(
        title=f"Test accuracy in %, mean ± sd over {settings.seeds} seed(s), "
        f"{settings.steps} steps;\n× is the factor on the loss of {results.tasks[0]}",
        **LAYOUT,
    )
    table.add_column("method", no_wrap=True)
    for scale in SCALES:
        for task in results.tasks:
            table.add_column(f"{task} ×{scale}", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for method, outcome in results.outcomes.items():
        table.add_row(method, *cells(outcome.accuracy["test"]), outcome.verdict)
    return table


def time_table(results: Results) -> Table:
    """Seconds a method took, compilation apart."""
    title = "Seconds a method; two at a time share the machine"
    table = Table(title=title, **LAYOUT)
    table.add_column("method")
    table.add_column("compile", justify="right")
    table.add_column("train", justify="right")
    for method, outcome in results.outcomes.items():
        times = outcome.compile_seconds, outcome.run_seconds
        table.add_row(method, *(f"{seconds:.1f}" for seconds in times))
    return table


def cells(accuracy: NDArray) -> list[str]:
    """`[scales, seeds, T]` as "mean ± sd" for each scale and task."""
    mean = accuracy.mean(axis=1).ravel()
    if accuracy.shape[1] == 1:
        return [f"{m:.1f}" for m in mean]
    sd = np.std(accuracy, axis=1, ddof=1).ravel()
    return [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, sd, strict=True)]
