"""Which leaves belong together: groups of leaves that the same tasks share.

Used by `on_shared` and the methods of `from_grad_fn`; internal to the library.
"""

import numbers
from typing import Any

import jax
import numpy as np

from mtl_optax.core.trees.leaves import spread


def groups_of_labels(
    labels: Any, tree: Any, num_tasks: int | None
) -> dict[str, tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Tasks, and one bool a leaf, of each subset of two or more tasks, by its name.

    In order of names, as JAX keeps the keys of a dict; `num_tasks` None: not known yet.
    """
    found = spread(labels, tree, _is_label)
    subsets = [_subset(name, label, num_tasks) for name, label in found]
    groups = {
        ",".join(map(str, tasks)): (tasks, tuple(s == tasks for s in subsets))
        for tasks in set(subsets)
        if len(tasks) > 1
    }
    return dict(sorted(groups.items()))


def _is_label(x: Any) -> bool:
    """A tuple that holds no trees; a tuple of parameters has dicts or labels in it."""
    return isinstance(x, (tuple, list)) and jax.tree_util.all_leaves(x)


def _subset(name: str, label: Any, num_tasks: int | None) -> tuple[int, ...]:
    """The label of one leaf, in order, or an error that names the leaf."""
    whole = isinstance(label, tuple) and all(
        isinstance(t, numbers.Integral) and not isinstance(t, bool) for t in label
    )
    if not whole or not label:
        wrong = "must be a tuple of one or more task indices, for example (0, 1)"
    elif len(set(label)) < len(label):
        wrong = "names a task twice"
    elif min(label) < 0 or (num_tasks is not None and max(label) >= num_tasks):
        count = "T" if num_tasks is None else f"{num_tasks}"
        wrong = f"names a task that is not there: {count} tasks are numbered from 0"
    else:
        return tuple(sorted(int(t) for t in label))
    leaf = name or "of the parameters"
    raise ValueError(f"on_shared: in labels= leaf {leaf} has {label!r}, which {wrong}.")


def owners(owner: Any, params: Any, num_tasks: int) -> list[int | None]:
    """For each leaf the one task that owns it, or None where all tasks share it.

    `owner` is a tree of them like `params`, a prefix of one (None alone: every leaf is
    shared), or a function of `params`.
    """
    found = spread(owner, params, lambda x: x is None)
    return [_owner(name, label, num_tasks) for name, label in found]


def _owner(name: str, label: Any, num_tasks: int) -> int | None:
    if label is None:
        return None
    if isinstance(label, (bool, np.bool_)):
        wrong = "a mask; put None where all tasks share the leaf, the owner elsewhere"
    elif not isinstance(label, (int, np.integer)):
        wrong = "neither None (shared by all) nor the index of the task that owns it"
    elif not 0 <= label < num_tasks:
        wrong = f"a task that is not there: {num_tasks} tasks are numbered from 0"
    else:
        return int(label)
    leaf = name or "of the parameters"
    raise ValueError(f"In owner= leaf {leaf} has {label!r}, which is {wrong}.")
