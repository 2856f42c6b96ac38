"""The public methods, a row each, read from their docstrings.

There is no list to keep: a method is a public factory that lives in a `from_*` folder,
and what is shown is what its docstring says.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import mtl_optax as mtl
from mtl_optax.catalogue.docstrings import plain, sections

_SEES = {
    "from_losses": "losses",
    "from_gramian": "Gramian",
    "from_gradients": "gradients",
    "from_grad_fn": "gradient function",
}
_SHORT = (
    *((r"\bone backward pass\b", "1"), (r"\bT backward passes\b", "T")),
    *((r" with lazy gradients", ""), (r" and T copies of the gradient", " + T copies")),
)
COSTS = ("method", "needs", "backward passes", "state", "output scale")
INFERRED = (
    "INFERRED is a choice of ours, where neither the paper nor its authors' code "
    "settles it. Backward passes are those with lazy gradients."
)


class Method(NamedTuple):
    """A row of the table; "-" where the docstring says nothing."""

    name: str
    needs: str
    passes: str
    state: str
    scale: str
    invariances: str
    guarantee: str
    when_not: str
    inferred: str
    summary: str

    def costs(self) -> tuple[str, ...]:
        """Cells for COSTS, shortened."""
        passes = self.passes
        for long, short in _SHORT:
            passes = re.sub(long, short, passes)
        scale = re.split(r"[,;] | \(", self.scale)[0].strip()
        return self.name, self.needs, passes, self.state, scale

    def promises(self) -> dict[str, str]:
        """All else that the docstring says."""
        words = {
            "Output scale": self.scale,
            "Invariances": self.invariances,
            "Guarantee": self.guarantee,
            "When not to use it": self.when_not,
            "INFERRED": self.inferred,
        }
        if self.costs()[-1] == self.scale:
            del words["Output scale"]
        return {name: text for name, text in words.items() if text != "-"}


def methods() -> list[Method]:
    """All public methods, in the order of what they need to see."""
    rows = [(folder, _method(name, folder)) for name, folder in _factories()]
    order = list(_SEES)
    return [row for _, row in sorted(rows, key=lambda x: order.index(x[0]))]


def _factories() -> Iterator[tuple[str, str]]:
    for name in mtl.__all__:
        parts = getattr(getattr(mtl, name), "__module__", "").split(".")
        if len(parts) > 1 and parts[1] in _SEES:
            yield name, parts[1]


def _method(name: str, folder: str) -> Method:
    factory = getattr(mtl, name)
    parts = sections(inspect.getdoc(factory) or "")
    returns = parts.get("Returns", "")
    cost = re.split(r"[;,.](?:\s+|$)", parts.get("Cost", ""))
    state = next((x for x in cost if "state" in x), "-").strip()
    scale = re.search(r"Output scale: (.*?)\.(?:\s|$)", returns)
    return Method(
        name=name,
        needs=", ".join([_SEES[folder], *_extras(factory, returns, folder)]),
        passes=cost[0] or "-",
        state="none" if state.startswith("no state") else _state(state),
        scale=plain(scale[1]) if scale else "-",
        invariances=plain(parts.get("Invariances", "")) or "-",
        guarantee=plain(parts.get("Guarantee", "")) or "-",
        when_not=plain(parts.get("When not to use it", "")) or "-",
        inferred=_inferred(factory),
        summary=plain((inspect.getdoc(factory) or "").partition("\n\n")[0]),
    )


def _extras(factory: Callable, returns: str, folder: str) -> list[str]:
    extras = []
    if folder != "from_losses" and "`update` needs `losses=`" in returns:
        # 'With "loss" its `update` needs ...', or 'its `update` needs ...'
        some = re.search(r'With "[^.;]* its `update` needs `losses=`', returns)
        extras.append("losses (some options)" if some else "losses")
    if "`validation_losses_fn=`" in returns:
        extras.append("second batch")
    if "key" in inspect.signature(factory).parameters:
        extras.append("key")
    return extras


def _state(text: str) -> str:
    return re.sub(r"^state of | of state$", "", text)


def _inferred(factory: Callable) -> str:
    module = inspect.getdoc(inspect.getmodule(factory)) or ""
    text = " ".join(f"{module}\n{inspect.getdoc(factory) or ''}".split())
    found = [x for x in re.split(r"(?<=\.) |; ", text) if "INFERRED" in x]
    return plain(" ".join(found)) or "-"
