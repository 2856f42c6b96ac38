"""A report: a title, what it says, and a list of blocks. Two renderers show it.

`html.page` makes a page of it that needs no other file, `terminal.show` prints it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from mtl_optax.study.report.frame import Drawn, png
from mtl_optax.study.report.styles import Style

Row = Sequence[str]  # cells, the first of which names the row


class Heading(NamedTuple):
    """Over what follows."""

    text: str


class Text(NamedTuple):
    """A paragraph; kind is "", "strong", "small", "warning" or "code"."""

    text: str
    kind: str = ""


class Points(NamedTuple):
    """Sentences one below the other."""

    lines: Sequence[str]


class Links(NamedTuple):
    """Other pages, by name, relative to this one."""

    text: str
    targets: Mapping[str, str]


class Table(NamedTuple):
    """A table; with looks the name of a row has the sign and colour of its method."""

    title: str  # "" for none
    note: str
    head: Sequence[str]
    rows: Sequence[Row]
    looks: Mapping[str, Style] = {}

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, which stand left; numbers stand right."""
        cells = [row[column].lstrip("-+−×([") for row in self.rows]
        words = (x for x in cells if x and not x.startswith(("nan", "inf")))
        return column == 0 or any(not x[0].isdigit() for x in words)


class Figure(NamedTuple):
    """A picture; it lies beside the page as NAME.png, too."""

    name: str
    png: bytes
    caption: str


class Details(NamedTuple):
    """What a page may fold away, and the terminal leaves to the page."""

    summary: str
    blocks: Sequence[Any]
    open: bool = False


class Document(NamedTuple):
    """A whole report."""

    title: str
    question: str
    summary: Sequence[Any]  # blocks: first on the page, last on the terminal
    body: Sequence[Any]  # blocks
    credits: Sequence[str] = ()  # of the data
    files: Mapping[str, pd.DataFrame] = {}


SMOKE = Text(
    "This was a smoke run (--quick): too few seeds and steps for conclusions. "
    "The study itself is the same command without --quick.",
    "warning",
)


def figures(
    draws: Iterable[Callable[[Any], Drawn | None]], subject: Any
) -> list[Figure]:
    """Those that have something to draw, named as their functions are."""
    found = []
    for draw in draws:
        if (made := png(draw, subject)) is not None:
            found.append(Figure(draw.__name__, *made))
    return found


def pick(blocks: Iterable[Any], *kinds: type) -> list[Any]:
    """Blocks of these kinds, for another document."""
    return [block for block in blocks if isinstance(block, kinds)]
