"""Lazy gradients added to a stack that there is already, so that no second one is made.

Row after row, in the loop that pulls them back: of a leaf that all tasks reach in one
place one row is held at a time. Where tasks reach a leaf in several places, some of
them only, or through a convolution, the rows of that leaf are made first.
"""

import dataclasses
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
    folding = _Folding(totals, fold, active, axis_name, len(ones))
    linear = jaxprs.trace(losses_of, params)
    pieces = pull_back(linear, ones, folding.together)
    leaves = jax.tree.leaves(params)
    return [folding.finished(at, pieces[at], leaves[at]) for at in totals]


@dataclasses.dataclass(eq=False)
class _Folding:
    """One pull-back of all tasks, and the stacks that its loops have carried."""

    totals: Mapping[int, jax.Array]
    fold: Fold
    active: jax.Array | None
    axis_name: Any
    num_tasks: int
    done: dict[int, jax.Array] = dataclasses.field(default_factory=dict)

    def together(
        self,
        function: Callable[..., Any],
        types: Sequence[Any],
        tasks: Tasks,
        cotangents: Sequence[jax.Array],
        leaves: Sequence[bool],
        alone: Sequence[int | None],
    ) -> Sequence[Pieces]:
        """Of a region of several tasks: rows of leaves of its own are folded in."""
        transposed = jax.linear_transpose(function, *types)
        if convolves(function, types):
            return one_by_one(transposed, tasks, cotangents, "")
        whole = len(tasks) == self.num_tasks
        here = {
            i: at
            for i, at in enumerate(alone)
            if at is not None and whole and self._carried(at, types[i])
        }

        def step(held: Any, each: Any) -> tuple[Any, Any]:
            task, cotangent = each
            rows = transposed(cotangent)
            held = {i: self._with_row(held[i], rows[i], task) for i in here}
            return held, [row for i, row in enumerate(rows) if i not in here]

        start = {i: self.totals[at] for i, at in here.items()}
        order = jnp.arange(len(tasks))
        held, rest = lax.scan(step, start, (order, list(cotangents)))
        self.done.update({at: held[i] for i, at in here.items()})
        stacks = iter(rest)
        return [
            [] if i in here else [(tasks, next(stacks), "")] for i in range(len(types))
        ]

    def finished(self, at: int, pieces: Pieces, leaf: Any) -> jax.Array:
        """The stack of one leaf, from its rows if no loop has carried it."""
        if at in self.done:
            return self.done[at]
        part = merged(pieces, leaf, self.axis_name)
        rows = rows_of_all(part.part.stack(), part.tasks, self.num_tasks)
        if self.active is not None:
            rows = where_active(self.active, rows, jnp.zeros_like(rows))
        return self.fold(self.totals[at], rows, None)

    def _with_row(self, total: jax.Array, row: jax.Array, task: Any) -> jax.Array:
        row = mean_over(row, self.axis_name)
        row = row if self.active is None else jnp.where(self.active[task], row, 0)
        old = lax.dynamic_index_in_dim(total, task, keepdims=False)
        new = self.fold(old, row, task)
        return lax.dynamic_update_index_in_dim(total, new, task, 0)

    def _carried(self, at: int, row: Any) -> bool:
        # Inside jax.shard_map a loop can only carry what varies as its rows do.
        varies = _axes(row) - frozenset(jax.tree.leaves(self.axis_name))
        return at in self.totals and varies <= _axes(jax.typeof(self.totals[at]))


def _axes(aval: Any) -> frozenset[Any]:
    return frozenset(getattr(aval, "vma", ()) or ())
