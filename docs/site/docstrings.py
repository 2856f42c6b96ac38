"""Docstrings as their authors meant them: what napoleon makes of them is not all of it.

A section may begin on the line of its head ("Cost: none"), and what a function returns
is prose: a colon in it does not end a type.
"""

import re

from sphinx.application import Sphinx

HEAD = re.compile(r"^([A-Z][A-Za-z ]{3,40}): (?=\S)")
HEADS = {
    "Cost",
    "Difference",
    "Differences",
    "Guarantee",
    "Invariances",
    "Output scale",
    "Shared",
    "When not to use it",
}


def process(app: Sphinx, what: str, name: str, obj: object, options, lines) -> None:
    """Changes the lines in place, before napoleon sees them."""
    in_returns = False
    for number, line in enumerate(lines):
        head = HEAD.match(line)
        if head and head[1] in HEADS:
            lines[number] = f"**{head[1]}.** {line[head.end() :]}"
        if line and not line.startswith(" "):
            in_returns = line == "Returns:"
            if in_returns:
                lines[number] = ":returns:"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
