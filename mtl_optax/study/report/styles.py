"""How methods look: colour, marker and line, the same in every figure and table.

The usual methods have a colour of `analysis/palette.py` each. The others get looks by
their place: the colours come again with another marker and another line, so that no two
methods of a study share all three.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mtl_optax.analysis import palette

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
    "unitary": Style(palette.BLACK, "o", "solid"),
    "single_task": Style(palette.GREY, "o", "solid"),
    "pcgrad": Style(palette.ORANGE, "o", "solid"),
    "cagrad": Style(palette.BLUE, "o", "solid"),
    "mgda": Style(palette.VERMILION, "o", "solid"),
    "imtl_g": Style(palette.GREEN, "o", "solid"),
    # With two tasks PCGrad is exactly twice UPGrad; dashes show one on the other.
    "upgrad": Style(palette.SKY, "o", DASHES[0]),
    "nash_mtl": Style(palette.PURPLE, "o", DASHES[0]),
    "aligned_mtl": Style(palette.OLIVE, "o", "solid"),
    "mean": Style(palette.WINE, "o", DASHES[0]),
    "uw": Style(palette.INDIGO, "o", "solid"),
    "graddrop": Style(palette.VIOLET, "o", "solid"),
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
