"""Where `check_chain` looks in: the ends of every method, and what a wrapper holds.

A chain is closed over its parts, so that nothing outside can see what one hands to the
next. Each of ours therefore asks, while it is traced, whether somebody is watching.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import optax

# Part of the key under which JAX keeps what it traced: nothing that was traced for a
# watcher is ever used in training.
_window = jax.make_user_context(default_value=None)

METHOD = "method"  # gives an update
WRAPPER = "wrapper"  # the same, by one or more transformations inside
ROWS = "rows"  # gives gradients stacked over tasks


class Watcher(Protocol):
    """Somebody who looks at a chain while it is traced."""

    def visit(
        self, kind: str, update: Any, updates: Any, state: Any, params: Any, extra: Any
    ) -> tuple[Any, Any]:
        """Instead of `update(updates, state, params, **extra)`, at one of our parts."""

    def look_inside(
        self, inner: Any, within: str | None, updates: Any, state: Any
    ) -> tuple[Any, Any] | None:
        """Instead of the update of what one of our wrappers holds; None: do it."""


class _Window:
    """What JAX keeps as part of a key, without the watcher once it has looked."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher: Watcher | None = watcher


@contextlib.contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """A context in which the watcher is asked."""
    window = _Window(watcher)
    try:
        with _window(window):
            yield
    finally:
        window.watcher = None


def _watcher() -> Watcher | None:
    window = _window.value
    return None if window is None else window.watcher


def watched() -> bool:
    """Whether somebody is watching."""
    return _watcher() is not None


def unwatched() -> Any:
    """A context in which nobody is."""
    return _window(None)


def placed(
    init: Callable[..., Any], update: Callable[..., Any], kind: str = METHOD
) -> optax.GradientTransformationExtraArgs:
    """The transformation, of one of three kinds, which lets itself be watched."""

    @functools.wraps(update)
    def seen(
        updates: Any, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        watcher = _watcher()
        if watcher is None:
            return update(updates, state, params, **extra_args)
        return watcher.visit(kind, update, updates, state, params, extra_args)

    return optax.GradientTransformationExtraArgs(init, seen)


def inside(
    tx: optax.GradientTransformation, within: str | None = None
) -> optax.GradientTransformationExtraArgs:
    """What a wrapper of ours holds, with extra arguments, which lets itself be watched.

    `within` names the wrapper if all that it may do behind its method is to multiply by
    numbers.
    """
    inner = optax.with_extra_args_support(tx)

    def seen(
        updates: Any, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        watcher = _watcher()
        if watcher is not None:
            found = watcher.look_inside(inner, within, updates, state)
            if found is not None:
                return found
        return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, seen)
