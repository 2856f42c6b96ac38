"""How methods look: colour, marker and line, the same in every figure and table.

Okabe and Ito's palette, safe for colour-blind readers, for the usual methods, then dark
ones of Paul Tol's. The others get looks by their place: the colours come again with
another marker and another line, so that no two methods of a study share all three.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

DASHES: Any = (
    *((0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)), (0, (2, 1))),
    *((0, (8, 2)), (0, (3, 1, 1, 1)), (0, (5, 1)), (0, (8, 2, 2, 2))),
)
GLYPHS = {
    **{"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"},
    **{"<": "◀", ">": "▶"},
}
MARKERS = tuple(GLYPHS)[1:]


class Style(NamedTuple):
    """For Matplotlib."""

    colour: str
    marker: str
    line: Any

    @property
    def glyph(self) -> str:
        """Of the marker, for HTML."""
        return GLYPHS[self.marker]


FIRST = {
    "unitary": Style("#000000", "o", "solid"),
    "single_task": Style("#7F7F7F", "o", "solid"),
    "pcgrad": Style("#E69F00", "o", "solid"),
    "cagrad": Style("#0072B2", "o", "solid"),
    "mgda": Style("#D55E00", "o", "solid"),
    "imtl_g": Style("#009E73", "o", "solid"),
    # With two tasks PCGrad is exactly twice UPGrad; dashes show one on the other.
    "upgrad": Style("#56B4E9", "o", DASHES[0]),
    "nash_mtl": Style("#CC79A7", "o", DASHES[0]),
    "aligned_mtl": Style("#999933", "o", "solid"),
    "mean": Style("#882255", "o", DASHES[0]),
    "uw": Style("#332288", "o", "solid"),
    "graddrop": Style("#AA4499", "o", "solid"),
}
# Black and grey stay with the plain sum and the single tasks.
PALETTE = tuple(style.colour for style in list(FIRST.values())[2:])


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Of the methods of a study, in their order."""
    names = list(dict.fromkeys(methods))
    others = [name for name in names if name not in FIRST]
    return {
        name: FIRST[name] if name in FIRST else _by_place(others.index(name))
        for name in names
    }


def _by_place(place: int) -> Style:
    again, colour = divmod(place, len(PALETTE))
    again %= len(MARKERS)
    return Style(PALETTE[colour], MARKERS[again], DASHES[again])
