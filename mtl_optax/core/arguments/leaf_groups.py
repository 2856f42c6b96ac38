"""Which leaves belong together: groups of leaves that the same tasks share.

Used by `on_shared` and the methods of `from_grad_fn`; internal to the library.
"""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_optax.core.arguments.masks import no_effect
from mtl_optax.core.arguments.names import Names, UnknownNames, sorted_names
from mtl_optax.core.trees.leaves import spread


def groups_of_labels(
    labels: Any, tree: Any, num_tasks: int | None, names: Names | None = None
) -> dict[str, tuple[tuple[Any, ...], tuple[bool, ...]]]:
    """Tasks, and one bool a leaf, of each subset of two or more tasks, by its name.

    In order of names, as JAX keeps the keys of a dict. Tasks are indices, or still what
    the labels call them with `num_tasks` None: not known yet.
    """
    found = spread(labels, tree, _is_label, what="labels=")
    subsets = [_subset(name, label, num_tasks) for name, label in found]
    mentioned = _mentioned(
        [(x[0], t) for x, s in zip(found, subsets, strict=True) for t in s]
    )
    groups = {
        ",".join(map(str, tasks)): (tasks, tuple(s == tasks for s in subsets))
        for tasks in set(subsets)
        if len(tasks) > 1
    }
    if subsets and not groups:
        raise ValueError(
            "labels= gives every leaf to a single task, so that the method would never "
            "act: name two or more tasks on the leaves that they share. Where nothing "
            "is shared, mtl_optax.unitary(num_tasks) gives each leaf its owner's own "
            "gradient."
        )
    if len(set(subsets)) == 1 and len(subsets[0]) == num_tasks:
        no_effect("labels= names all tasks on every leaf")
    if mentioned and num_tasks is not None:
        place = task_order("on_shared: labels=", mentioned, names, num_tasks).index
        groups = {
            key: (tuple(map(place, tasks)), kept)
            for key, (tasks, kept) in groups.items()
        }
    return dict(sorted(groups.items()))


def task_order(
    what: str, mentioned: Names, names: Names | None, num_tasks: int
) -> Names:
    """The names of all tasks: those of the gradients, or else the names mentioned."""
    if names is None and len(mentioned) == num_tasks:
        return mentioned
    if names is None:
        raise UnknownNames(
            f"{what} names {len(mentioned)} of {num_tasks} tasks, {list(mentioned)}, "
            "and neither gradients nor losses have names here, to tell their order. "
            "Return the losses as a dict from losses_fn, pass losses= as a dict to "
            "update, or give indices.",
            mentioned,
        )
    if not set(mentioned) <= set(names):
        raise ValueError(
            f"{what} names the tasks {list(mentioned)}, but those of the gradients are "
            f"{list(names)}."
        )
    return names


def _mentioned(tasks: Sequence[tuple[str, Any]]) -> Names:
    """All names, sorted; none if tasks are given by index. Pairs of leaf and task."""
    by_name = [pair for pair in tasks if isinstance(pair[1], str)]
    if by_name and len(by_name) < len(tasks):
        leaf, task = by_name[0]
        raise ValueError(
            f"The tasks of leaves are all given by name or all by index, but leaf "
            f"{leaf or 'of the parameters'} has {task!r} by name, others an index."
        )
    return sorted_names({task for _, task in by_name})


def _is_label(x: Any) -> bool:
    """A tuple that holds no trees; a tuple of parameters has dicts or labels in it."""
    return isinstance(x, (tuple, list)) and jax.tree_util.all_leaves(x)


def _subset(name: str, label: Any, num_tasks: int | None) -> tuple[Any, ...]:
    """The label of one leaf, in order, or an error that names the leaf."""
    if isinstance(label, str):
        return (label,)
    named = isinstance(label, tuple) and all(isinstance(t, str) for t in label)
    whole = isinstance(label, tuple) and all(
        isinstance(t, numbers.Integral) and not isinstance(t, bool) for t in label
    )
    if not (whole or named) or not label:
        wrong = (
            "must be a tuple of one or more task indices, for example (0, 1), or names"
        )
    elif len(set(label)) < len(label):
        wrong = "names a task twice"
    elif named:
        return tuple(sorted(label))
    elif min(label) < 0 or (num_tasks is not None and max(label) >= num_tasks):
        count = "T" if num_tasks is None else f"{num_tasks}"
        wrong = f"names a task that is not there: {count} tasks are numbered from 0"
    else:
        return tuple(sorted(int(t) for t in label))
    leaf = name or "of the parameters"
    raise ValueError(f"on_shared: in labels= leaf {leaf} has {label!r}, which {wrong}.")


def owners(owner: Any, params: Any, num_tasks: int) -> list[Any]:
    """For each leaf the one task that owns it, or None where all tasks share it.

    `owner` is a tree of them like `params`, a prefix of one (None alone: every leaf is
    shared), or a function of `params`. Tasks are indices or names, as given.
    """
    found = spread(owner, params, lambda x: x is None, what="owner=")
    labels = [_owner(name, label, num_tasks) for name, label in found]
    pairs = [(x[0], t) for x, t in zip(found, labels, strict=True) if t is not None]
    mentioned = _mentioned(pairs)
    if len(mentioned) > num_tasks:
        raise ValueError(
            f"owner= names {len(mentioned)} tasks, {list(mentioned)}, but num_tasks="
            f"{num_tasks}."
        )
    return labels


class Owned(NamedTuple):
    """The task that owns each leaf, None where all tasks share it."""

    labels: tuple[Any, ...]  # what `owners` gave: an index, or a name
    tasks: tuple[int | None, ...]  # its index


def owned(labels: Sequence[Any], names: Names | None, num_tasks: int) -> Owned:
    """What `owners` gave, and the indices of these tasks."""
    mentioned = _names_in(labels)
    if not mentioned:
        return Owned(tuple(labels), tuple(labels))
    order = task_order("owner=", mentioned, names, num_tasks)
    tasks = [None if label is None else order.index(label) for label in labels]
    return Owned(tuple(labels), tuple(tasks))


def names_of_all(labels: Sequence[Any], num_tasks: int) -> Names | None:
    """The names of all tasks, where each of them owns a leaf by name; else None."""
    mentioned = _names_in(labels)
    return mentioned if len(mentioned) == num_tasks else None


def _names_in(labels: Sequence[Any]) -> Names:
    return sorted_names({label for label in labels if isinstance(label, str)})


def _owner(name: str, label: Any, num_tasks: int) -> Any:
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, (bool, np.bool_)):
        wrong = "a mask; put None where all tasks share the leaf, the owner elsewhere"
    elif not isinstance(label, (int, np.integer)):
        wrong = (
            "neither None (shared by all) nor the index or name of the task that owns "
            "it"
        )
    elif not 0 <= label < num_tasks:
        wrong = f"a task that is not there: {num_tasks} tasks are numbered from 0"
    else:
        return int(label)
    leaf = name or "of the parameters"
    raise ValueError(f"In owner= leaf {leaf} has {label!r}, which is {wrong}.")
