"""What the terminal shows while methods train."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mtl_optax.study.engine.train import Tick

ROWS = 12  # of the progress display


@contextmanager
def bars(console: Console, methods: tuple[str, ...], steps: int) -> Iterator[Tick]:
    """A bar a method that has begun on a terminal, one line an event in a log."""
    columns = (
        TextColumn("{task.description:<15}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[stage]:>9}"),
        TextColumn("{task.completed:>6.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal
    ) as display:
        whole = display.add_task("all methods", total=len(methods), stage="")
        waiting: Any = {"total": steps, "stage": "", "start": False, "visible": False}
        rows = {method: display.add_task(method, **waiting) for method in methods}

        def tick(method: str, stage: str, done: int) -> None:
            row, finished = rows[method], done == steps
            if stage == "compiling":
                display.start_task(row)
            stage = "done" if finished else stage
            # So many rows that the last ones would not be seen: those done make room.
            seen = not finished or len(methods) <= ROWS
            display.update(row, completed=done, stage=stage, visible=seen)
            if finished:
                display.advance(whole)
            if not console.is_terminal and (done == 0 or finished):
                console.print(f"{method}: {stage}", markup=False)

        yield tick
