"""Values for each task, given by name: a dict, read in sorted order of its names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

# What a method's argument is annotated with that has one value for each task.
PerTask = Annotated[Any, "[T] in sorted order of names, or a dict by task name"]

Names = tuple[Any, ...]


def sorted_names(named: Iterable[Any]) -> Names:
    """The names in the order of the tasks, which is that of `sorted`."""
    names = tuple(named)
    try:
        return tuple(sorted(names))
    except TypeError as error:
        raise ValueError(
            f"Tasks are taken in sorted order of their names, but {list(names)} do not "
            "sort: their types differ. Use strings only."
        ) from error


def agree(one: str, names: Names | None, other: str, others: Names | None) -> None:
    """Raises if both have names, and not the same."""
    if names is None or others is None or names == others:
        return
    here, there = (_apart(a, b) for a, b in ((names, others), (others, names)))
    raise ValueError(
        f"{one} and {other} name different tasks: {list(names)} and {list(others)}"
        f"{here and f'; only the former has {here}'}"
        f"{there and f'; only the latter has {there}'}. Give every task its one value, "
        "under the name that it has in the dict of losses."
    )


def _apart(names: Names, others: Names) -> str:
    return ", ".join(repr(name) for name in names if name not in others)


def count(what: str, names: Names, num_tasks: int) -> None:
    """Raises unless there are as many names as tasks."""
    if len(names) != num_tasks:
        raise ValueError(
            f"{what} names {len(names)} tasks, {list(names)}, but num_tasks="
            f"{num_tasks}. Give every task its one value by name."
        )


def values_of(named: Mapping[Any, Any], what: str) -> tuple[jax.Array, Names]:
    """The values `[T]` of a dict, in sorted order of its names, and these names."""
    if not named:
        raise ValueError(
            f"{what}= is an empty dict: give every task its value by name."
        )
    names = sorted_names(named)
    values = []
    for name in names:
        value = named[name]
        if value is None or jnp.shape(value) != ():
            raise ValueError(f"{what}[{name!r}] must be one number; got {value!r}.")
        values.append(jnp.asarray(value))
    return jnp.stack(values), names


def by_position(value: Any, what: str, names: Names | None) -> Any:
    """A dict by name as values `[T]` in order; anything else as it is.

    `names` are those of the gradients, where they have some.
    """
    if not isinstance(value, Mapping):
        return value
    values, own = values_of(value, what)
    agree(what, own, "the gradients", names)
    return values


def read_all(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Names | None]:
    """The arguments with dicts by name made vectors, and the names that all share."""
    found: dict[str, Any] = {}
    shared: Names | None = None
    of = ""
    for key, value in arguments.items():
        if not isinstance(value, Mapping):
            found[key] = value
            continue
        found[key], names = values_of(value, key)
        agree(f"{of}=", shared, f"{key}=", names)
        shared, of = names, key
    return found, shared


def order_of(
    what: str, tasks: Sequence[Any], num_tasks: int | None = None
) -> tuple[tuple[int, ...], Names | None]:
    """Tasks, given by index or all by name, as indices; and the names, if so given."""
    if tasks and all(isinstance(task, str) for task in tasks):
        names = sorted_names(tasks)
        return tuple(names.index(task) for task in tasks), names
    if any(isinstance(task, str) for task in tasks):
        raise ValueError(
            f"{what} must be all names or all indices of tasks, not both; got "
            f"{list(tasks)}."
        )
    return tuple(tasks), None
