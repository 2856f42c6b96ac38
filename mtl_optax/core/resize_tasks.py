"""resize_tasks: a training goes on with tasks added, removed or replaced."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_optax.core.task_rows import (
    Move,
    changed_axes,
    groups_of,
    move_between,
    moved_indices,
    moved_rows,
    source_of_task,
    successors,
)
from mtl_optax.core.trees.leaves import children
from mtl_optax.core.trees.task_axis import mark_of


def resize_tasks(
    opt_state: Any, old_names: Any, new_names: Any, fresh: Any = None
) -> Any:
    r"""The optimizer state for other tasks: what stays goes on, what is new starts.

    .. math::
      s'_t = \begin{cases} s_t & \text{for a task that stays} \\
      s^0_t & \text{for a new one} \end{cases}

    for every row (and every pair of rows) that a method or wrapper of this library
    keeps a task, whatever is around it: `optax.chain`, `optax.partition`,
    `optax.inject_hyperparams`, an NNX or Linen training state. Rows move to the place
    of their task in sorted order. All else, such as Adam's moments, is taken over leaf
    by leaf: parameters are matched by their path in the tree.

    Args:
      opt_state: the state so far, of `tx.init` or `tx.update`; or a tree that holds it,
        such as a `MultiTaskTrainState`, whose new parameters then come from `fresh`.
      old_names: names of its tasks, in any order (a dict of losses has them); tasks
        without names go by their indices, `range(T)`.
      new_names: names of the tasks from now on. A name that is in both is a task that
        stays, all others are new.
      fresh: the state that training would begin with, `tx.init(params)` of the
        transformation for the new tasks and of the new parameters. Needed to add a
        task, whose rows it gives, and wherever the parameters change: a new head's
        moments come from it, those of a head that it lacks are dropped.

    Returns:
      The new state, with the structure of `fresh`, or of `opt_state` without. Numbers
      of what stays are the same to the bit. Array-valued hyper-parameters of
      `optax.inject_hyperparams` are arguments, and those of `fresh`. Groups of
      `on_shared(labels=)` go on as the group with the same tasks, new and removed ones
      aside; one that is the successor of none, or of several, starts. Blocks of
      `granularity=` are matched by their order.

    Raises:
      ValueError: for names that do not fit the state, or a task that is new without
        `fresh`; for a state that does not say which of its axes belong to tasks; where
        the result would not have the shapes of `fresh`.

    Cost: one copy of what has a task axis. Call it once, outside the jitted step.

    When not to use it: for a task that is missing from some batches, which `active=`
    switches off. For states of many seeds at once use it under `jax.vmap`. Weights that
    sum to 1 over the tasks do so again only after the next step. A parameter whose own
    shape changes, such as one layer with an output for each task, has no moments that
    could be matched: this raises.

    A transformation or weighting of your own says which arrays belong to tasks by the
    annotations of its state, a NamedTuple: `Annotated[jax.Array, "[T, ...]"]` for one
    row a task, `"[T, T, ...]"` for one for each pair.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> def make(num_tasks):
      ...     return optax.chain(mtl.moco(num_tasks), optax.adam(0.1))
      >>> params = {"trunk": jnp.ones(2), "a": jnp.ones(1), "c": jnp.ones(1)}
      >>> grads = {"trunk": jnp.ones((2, 2)), "a": jnp.ones((2, 1)),
      ...          "c": jnp.ones((2, 1))}
      >>> tx = make(num_tasks=2)
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> tx, params = make(num_tasks=3), params | {"b": jnp.ones(1)}
      >>> state = mtl.resize_tasks(state, ["a", "c"], ["a", "b", "c"], tx.init(params))
      >>> state[0].steps, state[0].tracked["trunk"][:, 0]
      (Array([1, 0, 1], dtype=int32), Array([0.1, 0. , 0.1], dtype=float32))
      >>> {name: float(mu[0]) > 0 for name, mu in state[1][0].mu.items()}
      {'a': True, 'b': False, 'c': True, 'trunk': True}
    """
    move = move_between(old_names, new_names)
    if fresh is None and move.adds:
        raise ValueError(
            "resize_tasks: there are new tasks, "
            f"{[name for name in move.new if name not in move.old]}, and what they "
            "start from depends on the method's arguments: pass fresh=tx.init(params), "
            "with tx made for the new tasks."
        )
    walk = _Walk(move, fresh is not None)
    return walk.node(opt_state, opt_state if fresh is None else fresh, _Place())


class _Place(NamedTuple):
    """Where in the state, and what is known of the axes there."""

    path: tuple[Any, ...] = ()
    lead: int = 0  # axes of blocks before those of tasks
    # One of the marks of `task_axis`; "unknown" in a weighting's state, "argument" for
    # hyper-parameters; None elsewhere
    mark: str | None = None

    @property
    def name(self) -> str:
        return jax.tree_util.keystr(self.path) or "the only array"


class _Walk(NamedTuple):
    move: Move
    has_fresh: bool

    def node(self, old: Any, fresh: Any, place: _Place) -> Any:
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

    def sources(self, mine: Any, new: Any, place: _Place) -> dict[Any, Any]:
        """For each child of the new node the key of the old child that goes on."""
        same = {key: key for key, _ in new}
        names = {getattr(key, "key", key): key for key in mine}
        if place.mark == "by task":
            pairs = {k: source_of_task(getattr(k, "key", k), self.move) for k in same}
            return {k: names.get(name) for k, name in pairs.items()}
        before = groups_of(names, self.move.old)
        if before is None or self.move.old == self.move.new:
            return same
        new_names = {getattr(key, "key", key): key for key in same}
        after = groups_of(new_names, self.move.new) if self.has_fresh else None
        if after is None:
            raise ValueError(
                f"resize_tasks: {place.name} has a state for each of the groups of "
                f"tasks {list(names)}. Pass fresh=tx.init(params), with labels that "
                f"name groups of {list(self.move.new)}."
            )
        found = successors(before, after, self.move)
        return {new_names[name]: names[old] for name, old in found.items()}

    def leaf(self, old: Any, fresh: Any, place: _Place) -> Any:
        """The new array in place of an old one."""
        move, mark = self.move, place.mark
        axes: list[int] | None = []
        if mark == "[T] of indices":
            return moved_indices(old, move)
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


def _below(old: Any, key: Any, place: _Place) -> _Place:
    """The place of one child."""
    field = getattr(key, "name", None)
    path, lead, mark = (*place.path, key), place.lead, place.mark
    if field is None or not isinstance(old, tuple):  # of a NamedTuple
        return _Place(path, lead, None if mark == "by task" else mark)
    if mark in (None, "unknown", "by task"):
        own = mark_of(old, field)
        ours = type(old).__module__.startswith("mtl_optax.")
        says_all = ours or any(
            mark_of(old, other) for other in getattr(old, "_fields", ())
        )
        if own is not None:
            mark = own
        elif says_all and type(old).__annotations__.get(field) is jax.Array:
            mark = None  # an array that is no task's
        elif ours and field == "weighting":
            mark = "unknown"
        elif field == "hyperparams" and "Hyperparams" in type(old).__name__:
            mark = "argument"
    weights = getattr(old, "task_weights", None)
    if weights is not None:
        lead = jnp.ndim(jax.tree.leaves(weights)[0]) - 1
    return _Place(path, lead, mark)


def _check_nodes(old: Any, fresh: Any, mine: Any, new: Any, place: _Place) -> None:
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
