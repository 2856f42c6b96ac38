"""Tasks by name: a dict is read in sorted order of its names, everywhere."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.core.trees.replicated import whole

# What a method's argument is annotated with that has one value for each task.
PerTask = Annotated[Any, "[T] in sorted order of names, or a dict by task name"]

Names = tuple[Any, ...]


class UnknownNames(ValueError):
    """Tasks were named where nothing tells the order of all names."""

    def __init__(self, message: str, names: Names) -> None:
        super().__init__(message)
        self.names = names


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


def agreed_names(
    sources: Mapping[str, Names | None], num_tasks: int | None = None
) -> Names | None:
    """The names that all sources that know some agree on; None if none does.

    Raises:
      ValueError: if they differ, or are not as many as there are tasks.
    """
    known = {what: names for what, names in sources.items() if names}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{what}: {list(names)}" for what, names in known.items())
        raise ValueError(
            f"Tasks are named differently in one step. {listed}. Use the same names, "
            "for example the keys of the dict of losses."
        )
    for what, names in known.items():
        if num_tasks is not None and len(names) != num_tasks:
            raise ValueError(
                f"{what} name {len(names)} tasks, {list(names)}, but "
                f"num_tasks={num_tasks}: give each task its value, by its own name."
            )
    return next(iter(known.values()), None)


def active_mask(active: Any, num_tasks: int, what: str = "active") -> jax.Array:
    """`active` as a boolean vector `[T]`, from one or from a dict of bools by name."""
    if isinstance(active, Mapping):
        active, names = values_of(active, what)
        agreed_names({f"{what}=": names}, num_tasks)
    mask = jnp.asarray(active)
    if mask.shape != (num_tasks,) or mask.dtype != jnp.bool_:
        raise ValueError(
            f"{what}= must be a boolean vector of shape ({num_tasks},), True for the "
            f"tasks present in this step; got shape {mask.shape} and dtype "
            f"{mask.dtype}. Use for example {what}=jnp.array(present, dtype=bool)."
        )
    return whole(mask)


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
        if value is None or np.shape(value) != ():
            raise ValueError(f"{what}[{name!r}] must be one value; got {value!r}.")
        values.append(jnp.asarray(value))
    return jnp.stack(values), names


def by_position(value: Any, what: str, names: Names | None) -> Any:
    """A dict by name as values `[T]` in order; anything else as it is.

    `names` are those of the gradients, where they have some.
    """
    if not isinstance(value, Mapping):
        return value
    values, own = values_of(value, what)
    agreed_names({what: own, "the gradients": names})
    return values


def read_all(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Names | None]:
    """The arguments with dicts by name made vectors, and the names that all share."""
    found, sources = dict(arguments), {}
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            found[key], sources[f"{key}="] = values_of(value, key)
    return found, agreed_names(sources)


def named(values: jax.Array | None, names: Names | None) -> Any:
    """Values `[T]` as a dict by name, where there are names: so they travel on."""
    if values is None or names is None:
        return values
    return {name: values[t] for t, name in enumerate(names)}


def indices(what: str, tasks: Sequence[Any]) -> tuple[tuple[Any, ...], Names | None]:
    """All tasks in some order, given by index or by name, as indices; and the names."""
    if isinstance(tasks, str):
        raise ValueError(
            f"{what} must be a sequence of tasks; got one name, {tasks!r}."
        )
    tasks = tuple(tasks)
    if not any(isinstance(task, str) for task in tasks):
        return tasks, None
    if not all(isinstance(task, str) for task in tasks):
        raise ValueError(
            f"{what} must be all names or all indices of tasks, not both; got {tasks}."
        )
    names = sorted_names(dict.fromkeys(tasks))
    return tuple(names.index(task) for task in tasks), names


def index_of(what: str, task: Any, names: Names | None) -> Any:
    """The index of a task given by name; one given by index as it is."""
    if not isinstance(task, str):
        return task
    if names is None:
        raise UnknownNames(
            f"{what}={task!r} is a name, but neither gradients nor losses have names "
            "here. Return the losses as a dict from losses_fn (mtl_optax.task_grads "
            "stacks them without names: pass losses= as a dict to update too), or give "
            "the index.",
            (task,),
        )
    if task not in names:
        raise ValueError(f"{what}={task!r} is none of the tasks {list(names)}.")
    return names.index(task)
