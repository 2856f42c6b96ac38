"""The page docs/choosing.md, which `mtl-optax methods --markdown` prints.

The advice is advice.md as it is written, with links; the rest comes from the
docstrings. A test compares the committed page with what this gives.
"""

import re
from importlib import resources

from mtl_optax.catalogue.methods import COSTS, INFERRED, Method, methods


def markdown() -> str:
    """The whole page."""
    rows = methods()
    parts = [
        *map(_linked, _advice()),
        "\n## Costs\n",
        "T is the number of tasks.\n",
        _table(COSTS, [(_links(f"`{row.name}`"), *row.costs()[1:]) for row in rows]),
        "## Methods\n",
        f"{INFERRED}\n",
        *map(_section, rows),
    ]
    return "\n".join(parts).rstrip() + "\n"


def guide() -> list[list[str]]:
    """Head and rows of the advice: where one is, what to try, and why."""
    lines = [line for line in _advice() if line.startswith("|")]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [cells[0], *cells[2:]]


def _advice() -> list[str]:
    text = resources.files(__package__).joinpath("advice.md").read_text("utf-8")
    return text.splitlines()


def _linked(line: str) -> str:
    """A line of the advice: in the guide, the methods to try are links."""
    if not line.startswith("|"):
        return line
    where, what, *why = line.split(" | ")
    return " | ".join([where, _links(what), *why])


def _links(names: str) -> str:
    return re.sub(r"`(\w+)`", r"[`\1`](#\1)", names)


def _section(method: Method) -> str:
    promises = (f"* **{name}**: {text}" for name, text in method.promises().items())
    return "\n".join([f"### {method.name}\n", f"{method.summary}\n", *promises, ""])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)
