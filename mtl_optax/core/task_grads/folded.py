"""Lazy gradients added to a stack that there is already, so that no second one is made.

Row after row, in the loop that pulls them back: of a leaf that all tasks reach in one
place one row is held at a time. Where tasks reach a leaf in several places, some of
them only, or through a convolution, the rows of that leaf are made first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.layerwise.regions import Pieces, Tasks, pull_back
from mtl_optax.core.task_grads.data_axis import mean_over
from mtl_optax.core.task_grads.form import Fold
from mtl_optax.core.task_grads.layerwise import convolves, merged, one_by_one
from mtl_optax.core.trees.task_axis import rows_of_all, where_active


def folded_losses(
    losses_of: Callable[[Any], Sequence[jax.Array]],
    ones: Sequence[jax.Array],
    params: Any,
    totals: Mapping[int, jax.Array],
    fold: Fold,
    active: jax.Array | None,
    axis_name: Any,
) -> list[jax.Array]:
    """The stacks `[T, *param]` with the gradients of linear losses folded in.

    `totals` has one for each leaf of the parameters that is wanted, by its place.
    """
    num_tasks, done = len(ones), dict[int, jax.Array]()

    def add(total: jax.Array, row: jax.Array, task: Any) -> jax.Array:
        row = mean_over(row, axis_name)
        row = row if active is None else jnp.where(active[task], row, 0)
        old = lax.dynamic_index_in_dim(total, task, keepdims=False)
        return lax.dynamic_update_index_in_dim(total, fold(old, row, task), task, 0)

    def together(
        function: Callable[..., Any],
        types: Sequence[Any],
        tasks: Tasks,
        cotangents: Sequence[jax.Array],
        leaves: Sequence[bool],
        alone: Sequence[int | None],
    ) -> Sequence[Pieces]:
        transposed = jax.linear_transpose(function, *types)
        if convolves(function, types):
            return one_by_one(transposed, tasks, cotangents, "")
        whole = len(tasks) == num_tasks
        here = {
            i: at
            for i, at in enumerate(alone)
            if at is not None and whole and carried(at, types[i])
        }

        def step(held: Any, each: Any) -> tuple[Any, Any]:
            task, cotangent = each
            rows = transposed(cotangent)
            held = {i: add(total, rows[i], task) for i, total in held.items()}
            return held, [row for i, row in enumerate(rows) if i not in here]

        start = {i: totals[at] for i, at in here.items()}
        order = jnp.arange(len(tasks))
        held, rest = lax.scan(step, start, (order, list(cotangents)))
        done.update({here[i]: total for i, total in held.items()})
        stacks = iter(rest)
        return [
            [] if i in here else [(tasks, next(stacks), "")] for i in range(len(types))
        ]

    def finished(at: int) -> jax.Array:
        if at in done:
            return done[at]
        part = merged(pieces[at], leaves[at], axis_name)
        rows = rows_of_all(part.part.stack(), part.tasks, num_tasks)
        if active is not None:
            rows = where_active(active, rows, jnp.zeros_like(rows))
        return fold(totals[at], rows, None)

    def carried(at: int, row: Any) -> bool:
        # Inside jax.shard_map the loop can only carry what varies as its rows do.
        varies = _axes(row) - means
        return at in totals and varies <= _axes(jax.typeof(totals[at]))

    means = frozenset(jax.tree.leaves(axis_name))
    linear = jaxprs.trace(losses_of, params)
    pieces, leaves = pull_back(linear, ones, together), jax.tree.leaves(params)
    return [finished(at) for at in totals]


def _axes(aval: Any) -> frozenset[Any]:
    return frozenset(getattr(aval, "vma", ()) or ())
