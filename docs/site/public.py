"""Every public symbol, by what a method sees and by module: there is no list to keep."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import NamedTuple

import mtl_optax as mtl
from mtl_optax import analysis, flax_support, nn, rl

FAMILIES = {
    "core": ("gradients", "Gradients and parts of methods"),
    "from_losses": ("from_losses", "Methods that see the losses"),
    "from_gramian": ("from_gramian", "Methods that see the Gramian"),
    "from_gradients": ("from_gradients", "Methods that see every coordinate"),
    "from_grad_fn": ("from_grad_fn", "Methods that ask again"),
    "wrappers": ("wrappers", "Wrappers"),
    "analysis": ("analysis", "Analysis"),
}
ABOUT = {
    "gradients": "From losses to the gradients of tasks, what a method is made of, and "
    "what reads off what it did.",
    "from_losses": "One backward pass with lazy gradients.",
    "from_gramian": "At most T backward passes with lazy gradients, and no stack.",
    "from_gradients": "T backward passes, and T copies of the gradient.",
    "from_grad_fn": "They call the gradient function again at other parameters, or on a "
    "second batch.",
    "wrappers": "What goes around a method, or around a chain.",
    "analysis": "Measures of gradients, of predictions and of whole studies.",
}


class Group(NamedTuple):
    """A page of the API: symbols as (module in which users find them, name)."""

    page: str
    title: str
    about: str
    symbols: tuple[tuple[str, str], ...]


def groups() -> list[Group]:
    """All of them, in the order of cost."""
    return [
        *(_family(folder) for folder in FAMILIES),
        _module("nn", "Architectures", nn),
        _module("flax_support", "Flax", flax_support),
        _module("rl", "Reinforcement learning", rl),
    ]


def exported(module: ModuleType) -> list[str]:
    """Names of a module: those that it lists; else its own that show how to use them.

    A NamedTuple is what a function returns, and has no example.
    """
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    }
    return [
        name
        for name, value in own.items()
        if is_record(value) or ">>> " in (inspect.getdoc(value) or "")
    ]


def is_record(value: object) -> bool:
    """A NamedTuple."""
    return isinstance(value, type) and hasattr(value, "_fields")


def _family(folder: str) -> Group:
    page, title = FAMILIES[folder]
    symbols = [
        ("mtl_optax", name)
        for name in mtl.__all__
        if getattr(mtl, name).__module__.split(".")[1] == folder
    ]
    if folder == "analysis":
        known = {getattr(mtl, name) for _, name in symbols}
        for found in pkgutil.iter_modules(analysis.__path__):
            module = importlib.import_module(f"{analysis.__name__}.{found.name}")
            symbols += [
                (module.__name__, name)
                for name in exported(module)
                if getattr(module, name) not in known
            ]
    return Group(page, title, ABOUT[page], tuple(symbols))


def _module(page: str, title: str, module: ModuleType) -> Group:
    about = f".. automodule:: {module.__name__}\n   :no-members:\n   :no-index:"
    symbols = []
    for name in exported(module):
        value = getattr(module, name)
        if isinstance(value, ModuleType):  # its functions, and what the rest shares
            symbols += [
                (value.__name__, x)
                for x, part in vars(value).items()
                if getattr(part, "__module__", "") == value.__name__
                and not x.startswith("_")
                and x not in module.__all__
            ]
        else:
            symbols.append((module.__name__, name))
    return Group(page, title, about, tuple(symbols))
