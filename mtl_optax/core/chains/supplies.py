"""The extra arguments that a chain asks for, made up for a check of shapes."""

import re
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import UnknownNames, sorted_names
from mtl_optax.core.chains.places import METHOD

_OF_LOSSES = "losses_fn", "validation_losses_fn"
OF_OPTAX = {"value", "grad", "value_fn", "grad_fn", "obj_fn"}


def for_part(
    kind: str, update: Any, extra_args: dict[str, Any], num_tasks: int, names: set[str]
) -> dict[str, Any]:
    """The extra arguments of one of our parts, with what it needs and did not get.

    No more than that: a wrapper hands on what it gets.
    """
    known = names_of_all(names, num_tasks)
    ones = [jnp.ones(())] * num_tasks

    def losses_fn(params: Any) -> Any:
        squares = [jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params)]
        value = 1 + sum(x.astype(jnp.result_type(float)) for x in squares)
        return dict.fromkeys(known, value) if known else (value,) * num_tasks

    made_up: dict[str, Any] = dict.fromkeys(_OF_LOSSES, losses_fn) | {"epoch": 0}
    made_up = {k: v for k, v in made_up.items() if k in signature(update).parameters}
    if kind == METHOD or known:
        losses = dict(zip(known, ones, strict=True)) if known else jnp.ones(num_tasks)
        made_up["losses"] = losses
    given = {key: value for key, value in extra_args.items() if value is not None}
    return {**extra_args, **made_up, **given}


def names_of_all(names: set[str], num_tasks: int) -> tuple[Any, ...]:
    """T names, those that are known among them; none if none is known."""
    if not names:
        return ()
    others = [f"task {t}" for t in range(num_tasks - len(names))]
    return sorted_names([*names, *others])


def unknown_names(error: UnknownNames, num_tasks: int) -> set[str]:
    """The names that a method could not put in order, unless there are too many."""
    return set(error.names) if len(error.names) <= num_tasks else set()


def for_optax(wanted: dict[str, bool], params: Any, gradients: Any) -> dict[str, Any]:
    """Extra arguments of optax by name; True: asked for behind the methods."""

    def value_fn(params: Any) -> jax.Array:
        squares = [jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params)]
        return jnp.sum(jnp.stack(squares))

    def grad_fn(params: Any, *_: Any) -> Any:
        return params if wanted["grad_fn"] else gradients

    made_up = {
        "value": jnp.ones(()),
        "grad": params,
        "value_fn": value_fn,
        "obj_fn": value_fn,
        "grad_fn": grad_fn,
    }
    return {key: made_up[key] for key in wanted}


def wanted(error: Exception) -> set[str]:
    """The extra arguments that were missing, if that is what the error is about."""
    text = str(error)
    if isinstance(error, TypeError) and "missing" in text and "required" in text:
        return set(re.findall(r"'(\w+)'", text.split("required", 1)[1]))
    return set(re.findall(r"(\w+) must be provided", text))
