"""Hyper-parameters that change with the step count, as optax's schedules do."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

# What a method's argument is annotated with that is a number.
ScalarOrSchedule = Annotated[Any, "a number, or a function of the step count"]

# The same where several numbers may stand, in a form that the method checks.
NumbersOrSchedule = Annotated[Any, "numbers, or functions of the step count"]


class ScheduledState(NamedTuple):
    """State of a method whose hyper-parameters change."""

    # [] int32, steps so far, without those that had no active task
    count: jax.Array  # type: ignore[assignment]  # over that of a tuple
    inner: Any  # state of the method


def changes(arguments: Mapping[str, Any]) -> bool:
    """Whether one of them is a function of the step count, or a dict with one."""
    return any(
        _is_schedule(part) for value in arguments.values() for part in _parts(value)
    )


def at_step(arguments: Mapping[str, Any], count: jax.Array) -> dict[str, Any]:
    """The arguments with functions of the step count replaced by their values."""

    def now(value: Any) -> Any:
        value = value(count) if _is_schedule(value) else value
        if not isinstance(value, Mapping):
            return value
        return {k: v(count) if _is_schedule(v) else v for k, v in value.items()}

    return {key: now(value) for key, value in arguments.items()}


def first_step() -> jax.Array:
    """The count before the first step."""
    return jnp.zeros((), jnp.int32)


def next_step(count: jax.Array, active: Any) -> jax.Array:
    """The count after a step; the same if no task was active.

    `active` is `[T]`, a dict by name, or None for all.
    """
    if active is None:
        return count + 1
    present = active.values() if isinstance(active, Mapping) else [active]
    some = jnp.any(jnp.stack([jnp.any(jnp.asarray(x)) for x in present]))
    return count + some.astype(count.dtype)


def _is_schedule(value: Any) -> bool:
    """Whether it is to be called; an array in a variable that can be called is not."""
    return callable(value) and not hasattr(value, "__array__")


def _parts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else [value]
