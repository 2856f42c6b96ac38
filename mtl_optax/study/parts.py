"""What a method of a study is made of, beyond the number of tasks."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

import mtl_optax as mtl


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


def among_tasks(
    rule: optax.GradientTransformation,
    shared: Callable[[Any], Any],
    rest: str = "sum",
) -> optax.GradientTransformationExtraArgs:
    """`on_shared`, or the rule itself where the tasks share every leaf."""
    joint = mtl.on_shared(rule, shared, rest=rest)
    alone = optax.with_extra_args_support(rule)

    def chosen(params: Any) -> optax.GradientTransformationExtraArgs:
        return alone if all(jax.tree.leaves(shared(params))) else joint

    def init(params: Any) -> Any:
        return chosen(params).init(params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return chosen(params).update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(init, update)
