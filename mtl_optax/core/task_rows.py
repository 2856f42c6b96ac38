"""Arrays and keys of an optimizer state, moved from some tasks to others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.core.arguments.names import Names, sorted_names
from mtl_optax.core.arguments.random import is_key


class Move(NamedTuple):
    """From the old tasks to the new ones."""

    old: Names
    new: Names

    @property
    def sources(self) -> list[int | None]:
        """For each new task its old index, None where it is new."""
        return [self.old.index(n) if n in self.old else None for n in self.new]

    @property
    def adds(self) -> bool:
        """Whether some task is new."""
        return None in self.sources


def move_between(old_names: Any, new_names: Any) -> Move:
    """Both in sorted order, each name once."""
    return Move(_names("old_names", old_names), _names("new_names", new_names))


def _names(what: str, given: Any) -> Names:
    if isinstance(given, str):
        raise ValueError(f"resize_tasks: {what} must name all tasks; got {given!r}.")
    names = tuple(given)
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"resize_tasks: {what} must name every task, each once; got {list(names)}."
        )
    return sorted_names(names)


def moved_rows(
    name: str, old: Any, fresh: Any, axes: Sequence[int], move: Move
) -> jax.Array:
    """The array with its axes of tasks in the order of the new ones.

    Entries of tasks that are new come from `fresh`, which is not read without.
    """
    old = jnp.asarray(old)
    sizes = {old.shape[axis] if axis < old.ndim else None for axis in axes}
    if sizes != {len(move.old)}:
        raise ValueError(
            f"resize_tasks: {name} has shape {old.shape}, which is not that of the "
            f"{len(move.old)} tasks that old_names= names, {list(move.old)}."
        )
    index = np.array([s or 0 for s in move.sources])
    for axis in axes:
        old = jnp.take(old, index, axis=axis)
    if not move.adds:
        return old
    fresh = jnp.asarray(fresh)
    if fresh.shape != old.shape:
        raise ValueError(
            f"resize_tasks: {name} has shape {old.shape} for {len(move.new)} tasks, "
            f"but that of fresh= is {fresh.shape}: make it with tx.init for the tasks "
            f"of new_names=, {list(move.new)}. (Where granularity= makes blocks of "
            "leaves, their number must stay: they have no names to be matched by.)"
        )
    kept = np.ones((1,) * old.ndim, bool)
    for axis in axes:
        there = np.array([s is not None for s in move.sources])
        kept = kept & np.expand_dims(there, [i for i in range(old.ndim) if i != axis])
    fresh = fresh if fresh.dtype == old.dtype else fresh.astype(old.dtype)
    return jnp.where(np.broadcast_to(kept, old.shape), old, fresh)


def moved_indices(old: Any, move: Move) -> jax.Array:
    """Indices of tasks, `[T]`: each that of the first of those that had the same one.

    A task that is new has its own.
    """
    labels, sources = jnp.asarray(old), move.sources
    new = [jnp.asarray(t, labels.dtype) for t in range(len(sources))]
    for t, source in enumerate(sources):
        earlier = [s for s in range(t) if sources[s] is not None]
        for s in reversed(earlier if source is not None else []):
            same = labels[source] == labels[sources[s]]
            new[t] = jnp.where(same, s, new[t]).astype(labels.dtype)
    return jnp.stack(new)


def moved_turns(old: Any, move: Move) -> jax.Array:
    """Whose turn it is, `[T]` bool: theirs who stay; the first take those of others."""
    due, none = jnp.asarray(old), jnp.zeros((), bool)
    stay = jnp.stack([none if s is None else due[s] for s in move.sources])
    free = jnp.sum(due) - jnp.sum(stay)
    return stay | (~stay & (jnp.cumsum(~stay) <= free))


def changed_axes(old: Any, fresh: Any, move: Move) -> list[int] | None:
    """The axes of tasks of an array that does not say, by its size for other tasks.

    None where the sizes cannot tell, or `fresh` is None, which would have others.
    """
    have, want = jnp.shape(old), () if fresh is None else jnp.shape(fresh)
    sizes = len(move.old), len(move.new)
    if move.old == move.new or is_key(old) or sizes[0] not in have:
        return []
    if sizes[0] == sizes[1] or len(have) != len(want):
        return None
    return [
        axis for axis, both in enumerate(zip(have, want, strict=True)) if both == sizes
    ]


def are_groups(keys: Iterable[Any]) -> bool:
    """Whether a dict with these keys has a state for each group of tasks."""
    return all(isinstance(key, str) and "," in key for key in keys)


def groups_of(keys: Iterable[str], names: Names) -> dict[Any, Names] | None:
    """The tasks of each group of `on_shared(labels=)` by its key; None: of other tasks.

    A key lists the names of the tasks, or their indices.
    """
    by_name = {name: name for name in names if isinstance(name, str)}
    by_index = {str(index): name for index, name in enumerate(names)}
    found = {}
    for key in keys:
        parts = key.split(",")
        known = by_name if all(part in by_name for part in parts) else by_index
        if not all(part in known for part in parts):
            return None
        found[key] = tuple(known[part] for part in parts)
    return found


def successors(
    before: Mapping[Any, Names], after: Mapping[Any, Names], move: Move
) -> dict[Any, Any]:
    """For each group from now on the key of the one that it was, where it was one."""
    found = {}
    for key, tasks in after.items():
        stay = set(tasks) & set(move.old)
        were = [
            old
            for old, those in before.items()
            if stay and set(those) & set(move.new) == stay
        ]
        exact = [old for old in were if before[old] == tasks]
        if len(exact or were) == 1:
            found[key] = (exact or were)[0]
    return found


def source_of_task(key: Any, move: Move) -> Any:
    """The old key of a task's entry, which is its index or its name; None: it is new.

    Other keys are the same.
    """
    if key in move.new or not str(key).isdigit():
        return key
    source = move.sources[int(key)] if int(key) < len(move.new) else None
    return None if source is None else str(source)
