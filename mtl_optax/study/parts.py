"""What a method of a study is made of, beyond the number of tasks."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax


class Parts(NamedTuple):
    """What such a method is made of."""

    num_tasks: int
    owner: Callable[[Any], Any]  # Problem.owner
    shared: Callable[[Any], Any]  # Problem.shared
    optimizer: optax.GradientTransformation
    key: jax.Array
    strength_fn: Callable[[Any, Any], Any] | None  # Problem.strength_fn


def keyed(method: Callable[..., Any], key: jax.Array) -> Callable[..., Any]:
    """The method, with the key if it is one that draws."""
    draws = "key" in inspect.signature(method).parameters
    return partial(method, key=key) if draws else method
