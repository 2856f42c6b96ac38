"""The table behind `mtl-optax methods`, read from the docstrings of the methods.

There is no list to keep: a method is a public factory that lives in a `from_*` folder,
and what is shown is what its docstring says.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import mtl_optax as mtl

_SEES = {
    "from_losses": "losses",
    "from_gramian": "Gramian",
    "from_gradients": "gradients",
    "from_grad_fn": "gradient function",
}
_HEAD = re.compile(
    r"(Args|Returns|Raises|Cost|Guarantee|When not to use it|Example|References):"
    r"(?: |$)"
)
_MATHS = (
    *((r"\\langle ?", "⟨"), (r" ?\\rangle", "⟩"), (r"\\ge\b", "≥"), (r"\\le\b", "≤")),
    *((r"\\\|", "‖"), (r":math:`([^`]*)`", r"\1"), ("`", "")),
)


class Method(NamedTuple):
    """A row of the table."""

    name: str
    needs: str
    passes: str
    state: str
    scale: str
    guarantee: str
    when_not: str
    inferred: str


def methods() -> list[Method]:
    """All public methods, in the order of what they need to see."""
    rows = [(folder, _method(name, folder)) for name, folder in _factories()]
    order = list(_SEES)
    return [row for _, row in sorted(rows, key=lambda x: order.index(x[0]))]


def show(console: Console) -> None:
    """Two tables: what a method costs, and what it promises."""
    costs = Table(box=box.SIMPLE, pad_edge=False, title="What a method costs")
    for name in ("method", "needs", "backward passes", "state", "output scale"):
        costs.add_column(name)
    promises = Table(
        box=box.SIMPLE, pad_edge=False, show_lines=True, title="What it promises"
    )
    for name in ("method", "guarantee", "when not to use it", "INFERRED"):
        promises.add_column(name)
    for row in methods():
        cells = row.name, row.needs, row.passes, row.state, row.scale
        costs.add_row(*map(Text, cells))
        words = row.name, row.guarantee, row.when_not, row.inferred
        promises.add_row(*map(Text, words))
    console.print(costs)
    console.print(promises)
    console.print(
        "INFERRED: our choice, since neither paper nor code of the authors settles it. "
        "A dash: the docstring says nothing.",
        highlight=False,
    )


def _factories() -> Iterator[tuple[str, str]]:
    for name in mtl.__all__:
        parts = getattr(getattr(mtl, name), "__module__", "").split(".")
        if len(parts) > 1 and parts[1] in _SEES:
            yield name, parts[1]


def _method(name: str, folder: str) -> Method:
    factory = getattr(mtl, name)
    parts = _sections(inspect.getdoc(factory) or "")
    returns = parts.get("Returns", "")
    cost = re.split(r"[;,.](?:\s+|$)", parts.get("Cost", ""))
    state = next((x for x in cost if "state" in x), "-").strip()
    scale = re.search(r"Output scale: (.*?)\.(?:\s|$)", returns)
    return Method(
        name=name,
        needs=", ".join([_SEES[folder], *_extras(factory, returns, folder)]),
        passes=cost[0] or "-",
        state="none" if state.startswith("no state") else _state(state),
        scale=_plain(scale[1]) if scale else "-",
        guarantee=_plain(parts.get("Guarantee", "")) or "-",
        when_not=_plain(parts.get("When not to use it", "")) or "-",
        inferred=_inferred(factory),
    )


def _extras(factory: Callable, returns: str, folder: str) -> list[str]:
    losses = folder != "from_losses" and "`losses=`" in returns
    draws = "key" in inspect.signature(factory).parameters
    return ["losses (some options)"] * losses + ["key"] * draws


def _state(text: str) -> str:
    return re.sub(r"^state of | of state$", "", text)


def _inferred(factory: Callable) -> str:
    module = inspect.getdoc(inspect.getmodule(factory)) or ""
    text = " ".join(f"{module}\n{inspect.getdoc(factory) or ''}".split())
    found = [x for x in re.split(r"(?<=\.) |; ", text) if "INFERRED" in x]
    return _plain(" ".join(found)) or "-"


def _sections(text: str) -> dict[str, str]:
    """Head -> text on one line; the description, without formulas, under ""."""
    parts: dict[str, list[str]] = {"": []}
    name, formula = "", False
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name, line, formula = head[1], line[head.end() :], False
            parts[name] = []
        if line.startswith(".. math::"):
            formula = True
        elif line and not line.startswith(" "):
            formula = False
        if not formula:
            parts[name].append(line)
    return {name: " ".join(" ".join(x).split()) for name, x in parts.items()}


def _plain(text: str) -> str:
    for pattern, plain in _MATHS:
        text = re.sub(pattern, plain, text)
    return text
