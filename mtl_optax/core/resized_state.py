"""The walk of `resize_tasks` through a state: what goes on, and where tasks have rows.

Subtrees of the old and the fresh state are matched by their keys. Annotations of the
states' classes say which axes belong to tasks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.task_rows import (
    Move,
    are_groups,
    changed_axes,
    groups_of,
    moved_indices,
    moved_rows,
    moved_turns,
    source_of_task,
    successors,
)
from mtl_optax.core.trees.leaves import children
from mtl_optax.core.trees.task_axis import mark_of


class Place(NamedTuple):
    """Where in the state, and what is known of the axes there."""

    path: tuple[Any, ...] = ()
    lead: int = 0  # axes of blocks before those of tasks
    # One of the marks of `task_axis`; "unknown" in a weighting's state, "argument" for
    # hyper-parameters; None elsewhere
    mark: str | None = None

    @property
    def name(self) -> str:
        """For errors."""
        return jax.tree_util.keystr(self.path) or "the only array"


class Walk(NamedTuple):
    """Through the old state and a fresh one, node by node."""

    move: Move
    has_fresh: bool

    def node(self, old: Any, fresh: Any, place: Place) -> Any:
        """The new state of one subtree."""
        if jax.tree_util.all_leaves([old]) and jax.tree_util.all_leaves([fresh]):
            return self.leaf(old, fresh, place)
        if not jax.tree.leaves(old) or not jax.tree.leaves(fresh):
            return fresh  # MaskedNode, and what else is empty
        mine, (new, treedef) = dict(children(old)[0]), children(fresh)
        _check_nodes(old, fresh, mine, new, place)
        sources = self.sources(mine, new, place)
        parts = []
        for key, child in new:
            source = sources.get(key)
            if source not in mine:
                parts.append(child)
            else:
                below = _below(old, key, place)
                parts.append(self.node(mine[source], child, below))
        return jax.tree.unflatten(treedef, parts)

    def sources(self, mine: Any, new: Any, place: Place) -> dict[Any, Any]:
        """For each child of the new node the key of the old child that goes on."""
        same = {key: key for key, _ in new}
        names = {getattr(key, "key", key): key for key in mine}
        if place.mark == "by task":
            pairs = {k: source_of_task(getattr(k, "key", k), self.move) for k in same}
            return {k: names.get(name) for k, name in pairs.items()}
        if not are_groups(names) or self.move.old == self.move.new:
            return same
        new_names = {getattr(key, "key", key): key for key in same}
        before = groups_of(names, self.move.old)
        after = groups_of(new_names, self.move.new) if self.has_fresh else None
        if before is None or after is None:
            raise ValueError(
                f"resize_tasks: {place.name} has a state for each of the groups of "
                f"tasks {list(names)}. Give old_names= as on_shared(labels=) has them, "
                f"{list(self.move.old)}, without commas, and fresh=tx.init(params) "
                f"with groups of {list(self.move.new)}."
            )
        found = successors(before, after, self.move)
        return {new_names[name]: names[old] for name, old in found.items()}

    def leaf(self, old: Any, fresh: Any, place: Place) -> Any:
        """The new array in place of an old one."""
        move, mark = self.move, place.mark
        axes: list[int] | None = []
        if mark == "[T] of indices":
            return moved_indices(old, move)
        if mark == "[T] of turns":
            return moved_turns(old, move)
        if mark in ("[T, ...]", "[T, T, ...]"):
            axes = list(range(place.lead, place.lead + mark.count("T")))
        elif mark == "argument" and jnp.ndim(old):
            if self.has_fresh:
                return fresh
            axes = changed_axes(old, None, move)
        elif mark == "unknown":
            axes = changed_axes(old, fresh if self.has_fresh else None, move)
        if axes is None:
            raise ValueError(
                f"resize_tasks: {place.name} of shape {jnp.shape(old)} does not say "
                f"which of its axes is that of the {len(move.old)} tasks. Make the "
                "state a NamedTuple with this field annotated as "
                'Annotated[jax.Array, "[T, ...]"] (one row a task) or "[T, T, ...]".'
            )
        result = old
        if axes and move.old != move.new:
            result = moved_rows(place.name, old, fresh, axes, move)
        if self.has_fresh and jnp.shape(result) != jnp.shape(fresh):
            raise ValueError(
                f"resize_tasks: {place.name} has shape {jnp.shape(old)}, in fresh= it "
                f"is {jnp.shape(fresh)}, and this is no axis of tasks that could be "
                "resized. A parameter that changes its shape is a new one: give it "
                "another name in the tree, so that its state starts, for example one "
                "head for each task."
            )
        return result


def _below(old: Any, key: Any, place: Place) -> Place:
    """The place of one child."""
    field = getattr(key, "name", None)
    path, lead, mark = (*place.path, key), place.lead, place.mark
    if field is None:  # of a dict or a sequence
        return Place(path, lead, None if mark == "by task" else mark)
    if mark in (None, "unknown", "by task"):
        hints = getattr(type(old), "__annotations__", {})
        ours = type(old).__module__.startswith("mtl_optax.")
        says_all = ours or any(mark_of(old, other) for other in hints)
        own = mark_of(old, field)
        if own is not None:
            mark = own
        elif says_all and hints.get(field) is jax.Array:
            mark = None  # an array that is no task's
        elif ours and field == "weighting":
            mark = "unknown"
        elif field == "hyperparams" and "Hyperparams" in type(old).__name__:
            mark = "argument"
    weights = getattr(old, "task_weights", None)
    if weights is not None:
        lead = jnp.ndim(jax.tree.leaves(weights)[0]) - 1
    return Place(path, lead, mark)


def _check_nodes(old: Any, fresh: Any, mine: Any, new: Any, place: Place) -> None:
    """Raises where two subtrees cannot be matched by their keys."""
    if jax.tree_util.all_leaves([old]) or jax.tree_util.all_leaves([fresh]):
        problem = "an array in one of both, a subtree in the other"
    elif type(old) is not type(fresh) and isinstance(fresh, (tuple, list)):
        problem = f"a {type(old).__name__}, in fresh= a {type(fresh).__name__}"
    elif isinstance(fresh, (tuple, list)) and len(mine) != len(new):
        problem = (
            f"a {type(old).__name__} of {len(mine)} parts, in fresh= of {len(new)}, "
            "which have no names to be matched by. Keep what belongs to tasks in a "
            "dict by name, and the chain as it was"
        )
    else:
        return
    raise ValueError(f"resize_tasks: {place.name} of the state is {problem}.")
