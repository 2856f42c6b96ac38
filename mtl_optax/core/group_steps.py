"""One optimiser step for each group of tasks in turn, on one batch, and its effects.

The optimiser runs on the shared leaves and on each task's own leaves apart, with a
state each, so that what belongs to tasks outside the group freezes whole: moments, step
counts, schedules.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments.leaf_groups import Owned
from mtl_optax.core.solvers.proximal_affinity import proximal_affinity
from mtl_optax.core.trees.branches import as_before

_SHARED = "shared"  # the part that no single task owns


class Sweep(NamedTuple):
    """What one group's step hands to the next."""

    moved: Any  # tree like params, the displacement so far, float32 or wider
    inner: Any  # optax.PartitionState: "shared", and each task's own by index or name
    affinity: jax.Array  # [T, T]
    before: jax.Array  # [T] losses before the last group's step, -1 where unknown
    group: jax.Array  # [T] bool, the last group; none before the first
    losses: jax.Array  # [T] before the first group's step


def by_owner(
    inner: optax.GradientTransformation, labels: Sequence[Any], params: Any
) -> optax.GradientTransformationExtraArgs:
    """The optimiser on the shared leaves, and on the leaves of each task, apart.

    `labels` are those of `owners`, one a leaf.
    """
    parts = [_part(label) for label in labels]
    tree = jax.tree.unflatten(jax.tree.structure(params), parts)
    # A function of a tree: a module that can be called would be called as labels.
    return optax.partition(dict.fromkeys(sorted(set(parts)), inner), lambda _: tree)


def _part(label: Any) -> str:
    """The name of a part of the optimiser's state."""
    if label is None:
        return _SHARED
    return "shared, a task" if label == _SHARED else str(label)


def standing(params: Any) -> Any:
    """No displacement yet: zeros like the parameters, in float32 or wider."""

    def zeros(param: Any) -> jax.Array:
        wide = jnp.promote_types(jnp.result_type(param), jnp.float32)
        return jnp.zeros_like(param, wide)

    return jax.tree.map(zeros, params)


def look_at(
    ask: Callable[..., Any], params: Any, moved: Any, group: jax.Array
) -> tuple[Any, jax.Array, Any]:
    """Moved parameters, the losses `[T]` there, and the gradient of the group's sum."""
    there = jax.tree.map(lambda p, d: (p + d).astype(p.dtype), params, moved)
    losses, gradient = ask(there, group.astype(jnp.result_type(float)))
    return there, losses.astype(jnp.result_type(float)), gradient


def take_step(
    parts: optax.GradientTransformationExtraArgs,
    of_leaf: Owned,
    start: tuple[Any, Any, Any],
    gradient: Any,
    group: jax.Array,
    extra_args: dict[str, Any],
) -> tuple[Any, Any]:
    """The displacement and the optimiser's states after a step of the group's tasks.

    Args:
      parts: of `by_owner`.
      of_leaf: the task that owns each leaf, None where all share it.
      start: the parameters there, the displacement so far, states of `parts`.
      gradient: like the parameters.
      group: `[T]` bool; what the other tasks own rests.
      extra_args: for the optimiser.
    """
    there, moved, states = start
    updates, new_states = parts.update(gradient, states, there, **extra_args)
    old, treedef = jax.tree.flatten(moved)
    trees = zip(of_leaf.tasks, old, jax.tree.leaves(updates), strict=True)
    moved = [
        (d + u if task is None else jnp.where(group[task], d + u, d)).astype(d.dtype)
        for task, d, u in trees
    ]
    new_states = as_before("The optimiser of the groups", new_states, states)
    return (
        jax.tree.unflatten(treedef, moved),
        _unless_frozen(new_states, states, of_leaf, group),
    )


def group_steps(
    inner: optax.GradientTransformation,
    of_leaf: Owned,
    params: Any,
    start: tuple[Any, jax.Array, jax.Array],
    groups: tuple[jax.Array, jax.Array, jax.Array],
    decay: Any,
    causal: bool,
    ask: Callable[..., Any],
    extra_args: dict[str, Any],
) -> Sweep:
    """A step of `inner` for each group in turn, each where the one before it ended.

    Args:
      inner: the optimiser.
      of_leaf: the task that owns each leaf, None where all share it.
      params: where the first group starts.
      start: state of `by_owner(inner, ...)`, affinity `[T, T]`, losses `[T]`.
      groups: `order` `[S]`, the labels in the order of their steps, those without a
        task skipped; `labels` `[T]`; `active` `[T]` bool.
      decay: of the affinity.
      causal: whether a group is credited with the change that its own step made, rather
        than with that before its step.
      ask: what `group_grads_at` makes.
      extra_args: for `inner`.
    """
    order, labels, active = groups
    num_tasks = labels.shape[0]
    parts = by_owner(inner, of_leaf.labels, params)

    look = partial(look_at, ask, params)

    def measure(sweep: Sweep, group: jax.Array, after: jax.Array) -> jax.Array:
        return proximal_affinity(sweep.affinity, group, sweep.before, after, decay)

    def step(sweep: Sweep, group: jax.Array) -> Sweep:
        there, losses, gradient = look(sweep.moved, group)
        start = there, sweep.moved, sweep.inner
        moved, states = take_step(parts, of_leaf, start, gradient, group, extra_args)
        return Sweep(
            moved=moved,
            inner=states,
            affinity=measure(sweep, sweep.group if causal else group, losses),
            before=jnp.where(active, losses, -1),
            group=group,
            losses=jnp.where(jnp.any(sweep.group), sweep.losses, losses),
        )

    def slot(sweep: Sweep, label: jax.Array) -> tuple[Sweep, None]:
        group = active & (labels == label)
        return lax.cond(
            jnp.any(group), step, lambda sweep, _: sweep, sweep, group
        ), None

    inner_state, affinity, losses = start
    none, unknown = jnp.zeros(num_tasks, bool), jnp.full_like(losses, -1)
    first = Sweep(standing(params), inner_state, affinity, unknown, none, losses)
    last, _ = lax.scan(slot, first, order)
    if causal:
        last = last._replace(
            affinity=measure(last, last.group, look(last.moved, none)[1])
        )
    return last


def _unless_frozen(new: Any, old: Any, of_leaf: Owned, group: jax.Array) -> Any:
    """The optimiser's states, but those of tasks outside the group as they were."""
    states = dict(new.inner_states)
    for label, task in set(zip(*of_leaf, strict=True)):
        if task is not None:
            part, choose = _part(label), partial(jnp.where, group[task])
            states[part] = jax.tree.map(choose, states[part], old.inner_states[part])
    return new._replace(inner_states=states)
