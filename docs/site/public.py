"""Every public symbol, by what a method sees and by module; no list is kept."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import NamedTuple

import mtl_optax as mtl
from mtl_optax import analysis, data, flax_support, nn, rl
from mtl_optax.training import run

# Folder of the package: its page, title, and what all of it has in common.
FAMILIES = {
    "core": (
        "gradients",
        "Gradients and parts of methods",
        "From losses to the gradients of tasks, what a method is made of, and what "
        "reads off what it did.",
    ),
    "from_losses": (
        "from_losses",
        "Methods that see the losses",
        "One backward pass with lazy gradients.",
    ),
    "from_gramian": (
        "from_gramian",
        "Methods that see the Gramian",
        "At most T backward passes with lazy gradients, and no stack of gradients.",
    ),
    "from_gradients": (
        "from_gradients",
        "Methods that see every coordinate",
        "T backward passes, and T copies of the gradient.",
    ),
    "from_grad_fn": (
        "from_grad_fn",
        "Methods that ask again",
        "They call the gradient function again, at other parameters or on a second "
        "batch.",
    ),
    "wrappers": (
        "wrappers",
        "Wrappers",
        "What goes around a method, or around a chain.",
    ),
    "analysis": (
        "analysis",
        "Analysis",
        "Measures of gradients, of predictions and of whole studies, which no method "
        "needs.",
    ),
}


class Group(NamedTuple):
    """A page of the API: names by the module in which users find them."""

    page: str
    title: str
    about: str
    names: dict[str, list[str]]

    def symbols(self) -> list[tuple[str, str]]:
        """As pairs of module and name."""
        return [(module, x) for module, names in self.names.items() for x in names]


def groups() -> list[Group]:
    """All of them, methods in the order of their cost."""
    return [
        *(_family(folder) for folder in FAMILIES),
        Group("nn", "Architectures", "", _listed(nn)),
        Group("flax_support", "Flax", "", {flax_support.__name__: own(flax_support)}),
        Group("rl", "Reinforcement learning", "", _listed(rl)),
        Group(
            "data",
            "Data on disk",
            "Loaders of data sets, their batches, and a run that trains on them. They "
            "need the extra ``train``; the page on your data is the guide.",
            _modules(data, run),
        ),
    ]


def _modules(package: ModuleType, *others: ModuleType) -> dict[str, list[str]]:
    """What each module of a package offers, and what others do."""
    found = [
        importlib.import_module(f"{package.__name__}.{part.name}")
        for part in pkgutil.iter_modules(package.__path__)
    ]
    return {x.__name__: names for x in (*found, *others) if (names := own(x))}


def is_record(value: object) -> bool:
    """A NamedTuple."""
    return isinstance(value, type) and hasattr(value, "_fields")


def own(module: ModuleType) -> list[str]:
    """What a module without `__all__` offers: what shows how to use it, and records.

    What several modules of ours share has no example.
    """
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (is_record(value) or ">>> " in (inspect.getdoc(value) or ""))
    ]


def _family(folder: str) -> Group:
    page, title, about = FAMILIES[folder]
    names = [
        name
        for name in mtl.__all__
        if getattr(mtl, name).__module__.split(".")[1] == folder
    ]
    by_module = {mtl.__name__: names}
    if folder == "analysis":
        for found in pkgutil.iter_modules(analysis.__path__):
            module = importlib.import_module(f"{analysis.__name__}.{found.name}")
            rest = [name for name in own(module) if name not in names]
            if rest:
                by_module[module.__name__] = rest
    return Group(page, title, about, by_module)


def _listed(module: ModuleType) -> dict[str, list[str]]:
    """`__all__`; a module that stands in it is a part of its own."""
    values = {name: getattr(module, name) for name in module.__all__}
    names = [x for x, value in values.items() if not isinstance(value, ModuleType)]
    by_module = {module.__name__: names}
    for value in values.values():
        if isinstance(value, ModuleType):
            by_module[value.__name__] = [
                name
                for name, part in vars(value).items()
                if inspect.isfunction(part) and part.__module__ == value.__name__
            ]
    return by_module
