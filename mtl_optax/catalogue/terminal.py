"""What `mtl-optax methods` prints."""

from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mtl_optax.catalogue.methods import COSTS, INFERRED, methods
from mtl_optax.catalogue.page import guide


def show() -> None:
    """A table of what methods cost, a paragraph on each, and which to try where."""
    console, rows = Console(), methods()
    layout: Any = {"box": box.SIMPLE, "padding": (0, 1, 0, 0), "pad_edge": False}
    costs = Table(title="What a method costs", **layout)
    for name in COSTS:
        costs.add_column(name, no_wrap=name == "method")
    for row in rows:
        costs.add_row(*map(_text, row.costs()))
    console.print(costs)
    for row in rows:
        console.print(Text.assemble((row.name, "bold"), "  ", _text(row.summary)))
        for name, words in row.promises().items():
            console.print(Padding(_text(f"{name}: {words}"), (0, 0, 0, 2)))
        console.print()
    console.print(INFERRED)
    advice = Table(title="Which to try", **layout)
    head, *places = guide()
    for name in head[:2]:
        advice.add_column(name)
    for where, what, _ in places:
        advice.add_row(_text(where), _text(what))
    console.print(advice)
    console.print("Why, and what to look out for: mtl-optax methods --markdown")


def _text(cell: str) -> Text:
    return Text(cell.replace("`", ""))
