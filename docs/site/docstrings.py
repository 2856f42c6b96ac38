"""Docstrings and signatures as they are meant, where Sphinx would read them otherwise.

A section may begin on the line of its head ("Cost: none"), and what a function returns
is prose, in which a colon ends no type.
"""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

HEAD = re.compile(
    r"^(Cost|Guarantee|Invariances|Output scale|Shared|When not to use it): (?=\S)"
)


def process(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Changes the lines in place, before napoleon sees them."""
    lines[:] = [HEAD.sub(r"**\1:** ", line) for line in lines]
    for number, line in enumerate(lines):
        if line == "Returns:":
            lines[number] = ":returns:"
        elif line == "Raises:" and lines[number + 1].startswith("  Nothing"):
            lines[number] = ":raises:"


def signature(
    app: Sphinx,
    what: str,
    name: str,
    value: Any,
    options: Any,
    shown: str,
    returned: str,
) -> tuple[str, str] | None:
    """Of a Flax NNX module, whose metaclass hides it, that of `__init__`."""
    if what != "class" or shown != "(*args, **kwargs)":
        return None
    made = inspect.signature(value.__init__)
    _, *parameters = made.parameters.values()
    made = made.replace(parameters=parameters, return_annotation=made.empty)
    return stringify_signature(made, show_annotation=False), returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
