"""A chain on rows of all tasks, of which a step renews some: `stale` and `mconfig`.

Rows are kept in float32 or wider. Of their inner products, where the method asks for
them, only those with renewed rows are computed: one read of all rows for each.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.stacked import moved, zero_stack
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.deferred import Deferred
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.branches import as_before
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskPairs, TaskRows, TaskTree
from mtl_optax.core.turns import Turns, TurnsState


class Normal(NamedTuple):
    """Inner products in a form that holds whatever size rows have."""

    products: TaskPairs  # [T, T, leaves], of rows over their sizes
    sizes: TaskRows  # [T, leaves], powers of two near each row's largest number

    def by_leaf(self) -> tuple[jax.Array, jax.Array]:
        """The same with leaves first."""
        return jnp.moveaxis(self.products, -1, 0), self.sizes.T


class StaleRows(NamedTuple):
    """What is kept of the gradients of all tasks."""

    averages: tuple[TaskTree, ...]  # [T, *param] each, bias-corrected moving averages
    counts: TaskRows  # [T] int32, how often each task's was renewed
    losses: TaskRows  # [T], when last seen where some were missing; 1 before
    normal: Normal | None  # None where the method does not look at products


class StaleState(NamedTuple):
    """State of what stands on stale rows."""

    turns: TurnsState  # has `due` [T]
    rows: StaleRows
    inner: Any  # state of the wrapped chain


class Averages(NamedTuple):
    """Which moving averages are kept, and what the method sees of them."""

    of: tuple[Callable[[jax.Array], jax.Array], ...]  # what each is an average of
    decays: tuple[Any, ...]
    row: Callable[..., jax.Array]  # of one leaf's averages


def momenta(decay: Any) -> Averages:
    """The gradients' moving averages, as they are."""
    return Averages((lambda g: g,), (decay,), lambda m: m)


def on_stale_rows(
    tx: optax.GradientTransformation, kept: Averages, turns: Turns
) -> optax.GradientTransformationExtraArgs:
    """The chain on the rows of all tasks, of which each step renews some."""
    inner, num_tasks = inside(tx), turns.num_tasks

    def init(params: optax.Params) -> StaleState:
        check_params("tx.init", params)
        state = inner.init(params)
        recorded = optax.tree.get_all_with_path(state, "task_gramian")
        looks = any(x is not None for _, x in recorded)
        rows = _no_rows(params, num_tasks, kept, looks)
        return StaleState(turns.init(params), rows, state)

    def update(
        updates: Any,
        state: StaleState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StaleState]:
        about = {"losses": losses, "active": active}
        given = as_task_grads(updates, num_tasks, params, **about)
        like = given.like()
        looks = state.rows.normal is not None
        wanted = jax.eval_shape(lambda: _no_rows(like, num_tasks, kept, looks))
        check_state(state.rows, wanted, num_tasks)
        present = jnp.ones(num_tasks, bool) if given.active is None else given.active
        come, next_turns = turns.take(state.turns, present)
        rows = jax.tree.map(jnp.asarray, state.rows)  # NumPy's, of a checkpoint, too
        seen = given.losses
        # Not where all are there: nobody might read them, and they need not be made.
        if seen is not None and given.active is not None:
            seen = jnp.where(present, seen, rows.losses)
            rows = rows._replace(losses=seen)
        for task, here in come:
            rows = _renewed(rows, kept, given, task, here)
        gradients = dataclasses.replace(
            _as_gradients(rows, kept), names=given.names, losses=seen
        )
        new, after = inner.update(gradients, state.inner, params, **extra_args)
        after = as_before("The chain in stale", after, state.inner)
        # No branch, which would copy both sides, and keep the method apart from the
        # optimiser: XLA makes one pass over all of it.
        ready = jnp.all(rows.counts > 0)
        new = jax.tree.map(
            lambda d, g: jnp.where(ready, d, 0).astype(g.dtype), new, like
        )
        after = jax.tree.map(partial(jnp.where, ready), after, state.inner)
        return new, StaleState(next_turns, rows, after)

    return placed(init, update, WRAPPER)


def rate_of(decay: Any, count: jax.Array) -> jax.Array:
    """How far the bias-corrected average of `count` values goes to the last of them."""
    beta = jnp.asarray(decay, jnp.result_type(float))
    count = count.astype(beta.dtype)
    left = jnp.where(beta < 1, 1 - beta**count, 1)
    return jnp.where(beta < 1, (1 - beta) / left, 1 / count)  # exactly 1 for one


def _no_rows(
    params: optax.Params, num_tasks: int, kept: Averages, looks: bool
) -> StaleRows:
    zeros = replicated_zeros((num_tasks,), params)
    leaves = len(jax.tree.leaves(params))
    shapes = (num_tasks, num_tasks, leaves), (num_tasks, leaves)
    products, sizes = (replicated_zeros(shape, params) for shape in shapes)
    return StaleRows(
        tuple(zero_stack(params, num_tasks) for _ in kept.of),
        zeros.astype(jnp.int32),
        zeros + 1,
        Normal(products, sizes + 1) if looks and leaves else None,
    )


def _renewed(
    rows: StaleRows, kept: Averages, given: TaskGrads, task: jax.Array, here: jax.Array
) -> StaleRows:
    """The rows with that of one task renewed, if it is there."""
    gradient = given.one(task)
    counts = rows.counts.at[task].add(here.astype(jnp.int32))
    count = jnp.maximum(counts[task], 1)

    def average(of: Any, decay: Any, old: optax.Updates) -> optax.Updates:
        rate = rate_of(decay, count)

        def move(old: jax.Array, g: jax.Array) -> jax.Array:
            row = old[task]
            new = moved(row, of(g.astype(old.dtype)), rate)
            return old.at[task].set(new)

        return jax.tree.map(move, old, gradient)

    def once(_: Any, old: tuple[optax.Updates, ...]) -> tuple[optax.Updates, ...]:
        return tuple(map(average, kept.of, kept.decays, old))

    # A loop of one round, or none, renews in place. Elsewhere XLA would fuse the new
    # rows into whatever reads them, again and again, and keep copies of the old ones;
    # as it would if it knew the number of rounds, which it does not if counts have one.
    rounds = (here & (rows.counts[task] >= 0)).astype(jnp.int32)
    averages = lax.fori_loop(0, rounds, once, rows.averages)
    rows = rows._replace(averages=averages, counts=counts)
    if rows.normal is None:
        return rows
    stack = jax.tree.leaves(jax.tree.map(kept.row, *averages))
    return rows._replace(normal=_remeasured(rows.normal, stack, task))


def _remeasured(old: Normal, stack: list[jax.Array], task: jax.Array) -> Normal:
    """The products with those of one row anew: one read of all rows."""
    largest = [jnp.max(jnp.abs(leaf[task]), initial=0) for leaf in stack]
    new = power_of_two(jnp.stack(largest).astype(old.sizes.dtype))
    sizes = old.sizes.at[task].set(new)

    def with_all(leaf: jax.Array, size: jax.Array) -> jax.Array:
        products = leaf * (leaf[task] / size.astype(leaf.dtype))[None]
        return jnp.sum(products, axis=range(1, leaf.ndim), dtype=sizes.dtype)

    rows = jnp.stack(list(map(with_all, stack, new)), axis=-1) / sizes
    return Normal(old.products.at[task].set(rows).at[:, task].set(rows), sizes)


def _as_gradients(rows: StaleRows, kept: Averages) -> Deferred:
    """All rows, which bring their products along."""
    stack = jax.tree.map(kept.row, *rows.averages)
    stacked = Deferred.stacked(stack, rows.counts.shape[0])
    known = None if rows.normal is None else rows.normal.by_leaf()
    return dataclasses.replace(stacked, normal=known)
