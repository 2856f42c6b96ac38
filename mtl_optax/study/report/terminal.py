"""A document on the terminal, with what it says in the end."""

from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text as Line

from mtl_optax.study.report.document import (
    Document,
    Heading,
    Points,
    Table,
    Text,
)

LEAST = 6  # characters of a column, where cells fold
# Narrow enough that the accuracies fit into 80 columns.
LAYOUT: Any = {"box": box.SIMPLE, "padding": 0, "show_edge": False}


def show(console: Console, document: Document) -> None:
    """All but figures, links and details, which are on the page."""
    console.print(Line(document.title, style="bold"))
    for block in (*document.body, *document.summary):
        if isinstance(block, Heading):
            console.print(Line(block.text, style="bold"))
        elif isinstance(block, Text):
            console.print(Line(block.text))
        elif isinstance(block, Points):
            for line in block.lines:
                console.print(Line(line))
        elif isinstance(block, Table):
            _table(console, block)


def _table(console: Console, table: Table) -> None:
    # The title as wide as the screen: over a narrow table it would be folded.
    title = ". ".join(x.removesuffix(".") for x in (table.title, table.note) if x)
    if title:
        console.print(Line(title))
    if not _fits(console, table):  # where rich would leave columns out
        for name, *cells in table.rows:
            each = (f"{x} {y}" for x, y in zip(table.head[1:], cells, strict=True))
            console.print(Line(f"{name}: {'; '.join(each)}"))
        console.print("")
        return
    grid = Grid(**LAYOUT)
    for column, name in enumerate(table.head):
        # Cells fold where the terminal is too narrow: none is cut.
        side: Any = "left" if table.is_text(column) else "right"
        grid.add_column(Line(name), justify=side, no_wrap=column == 0, overflow="fold")
    for row in table.rows:
        grid.add_row(*map(Line, row))
    console.print(grid, "")


def _fits(console: Console, table: Table) -> bool:
    """Whether names stand on a line, with LEAST or all of each other cell beside."""
    first, *others = (
        max(map(cell_len, column))
        for column in zip(table.head, *table.rows, strict=True)
    )
    return first + sum(min(width, LEAST) + 1 for width in others) <= console.width
