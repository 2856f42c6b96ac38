"""How a method looks: one colour, marker and line, the same in every figure and report.

Okabe and Ito's palette, safe for colour-blind readers, for the default methods, then
dark ones of Paul Tol's. The colours are fewer than the methods, so they come again with
another marker and another line: no two methods share all three. ORDER is only ever
appended to; then no method changes its looks.
"""

import zlib
from typing import Any, NamedTuple

DASHES: Any = (
    *((0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)), (0, (2, 1))),
    *((0, (8, 2)), (0, (3, 1, 1, 1))),
)
MARKERS = ("s", "^", "D", "v", "P", "X")
GLYPHS = {
    "o": "●",
    "s": "■",
    "^": "▲",
    "D": "◆",
    "v": "▼",
    "P": "✚",
    "X": "✖",
}  # of markers, for HTML


class Style(NamedTuple):
    """For Matplotlib."""

    colour: str
    marker: str
    line: Any


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
ORDER = (
    *("famo", "fairgrad", "dwa", "gradvac", "rlw", "conflictfree", "stch", "sdmgrad"),
    *("imtl_l", "moco", "gls", "gradnorm", "dualproj", "db_mtl", "tchebycheff"),
    *("excess_mtl", "modo", "constant", "krum", "trimmed_mean", "pcd", "pbi", "cosmos"),
    *("scale_invariant", "cdtt", "nmt", "flat_mtl", "cr_mogm", "selective_groups"),
    *("cso", "cso_project", "task_affinity", "sam", "tag"),
    *("f_mean", "f_mgda", "f_pcgrad", "f_cagrad", "f_imtl_g"),
    *(
        "joint",
        "selective_preference",
        "grouped",
        "blocks",
        "weighted",
        "self_auxiliary",
    ),
)


def style(method: str) -> Style:
    """Of any name; one that is not listed gets looks that depend on its letters."""
    if method in FIRST:
        return FIRST[method]
    if method in ORDER:
        number = ORDER.index(method)
    else:
        number = zlib.crc32(method.encode()) % (len(PALETTE) * len(MARKERS))
    again, colour = divmod(number, len(PALETTE))
    return Style(PALETTE[colour], MARKERS[again], DASHES[again])
