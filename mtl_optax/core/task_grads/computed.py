"""Gradients that are there: one stack a leaf, or T rows that were pulled one by one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.task_grads.in_range import in_range
from mtl_optax.core.task_grads.leaf_products import (
    LeafRows,
    leaf_gramian,
    over_leaves,
    row_like,
    stack_rows,
    weighted_sum,
)
from mtl_optax.core.task_grads.leaf_values import Values
from mtl_optax.core.trees.leaves import only
from mtl_optax.core.trees.task_axis import mix_tasks, where_active


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Computed:
    """Each leaf is `[T, *param]`, or T arrays `[*param]`, which nothing stacks."""

    leaves: tuple[LeafRows, ...]
    treedef: Any
    num_tasks: int
    names: tuple[Any, ...] | None = None
    losses: jax.Array | None = None
    active: jax.Array | None = None

    measured = True

    @classmethod
    def stacked(cls, tree: Any, num_tasks: int | None = None) -> "Computed":
        """From a tree of `[T, *param]`; T is read from the first leaf if not given."""
        leaves, treedef = jax.tree.flatten(tree)
        arrays = tuple(jnp.asarray(leaf) for leaf in leaves)
        if num_tasks is None:
            num_tasks = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
        return cls(leaves=arrays, treedef=treedef, num_tasks=num_tasks)

    def like(self) -> optax.Params:
        """A tree of shapes and dtypes like one row."""
        return jax.tree.unflatten(self.treedef, map(row_like, self.leaves))

    def select(self, kept: tuple[bool, ...]) -> "Computed":
        """On the kept leaves only; the others become MaskedNode."""
        pairs = zip(self.leaves, kept, strict=True)
        places = jax.tree.unflatten(self.treedef, range(len(kept)))
        return dataclasses.replace(
            self,
            leaves=tuple(leaf for leaf, keep in pairs if keep),
            treedef=jax.tree.structure(only(places, kept)),
        )

    def at_parameters(self) -> "Computed":
        """These."""
        return self

    def computed(self) -> "Computed":
        """These."""
        return self

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """Inner products of all pairs; one read of the gradients."""
        each = [leaf_gramian(leaf) for leaf in self.leaves]
        return over_leaves(each, self.active, blocks)

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The Gramian in a unit in which it is finite, and that unit."""
        parts = tuple(Values(rows=leaf) for leaf in self.leaves)
        tasks = (tuple(range(self.num_tasks)),) * len(parts)
        return in_range(parts, tasks, self.num_tasks, self.active, blocks)

    def mix(self, combinations: jax.Array) -> "Computed":
        """S weighted sums of the rows, each in the dtype of `combinations`.

        In float32 or wider, so that a combination that nearly cancels keeps the digits
        that a product of two Gramians has lost.
        """
        mixed = tuple(
            mix_tasks(combinations.T, stack_rows(leaf), self.active)
            for leaf in self.leaves
        )
        size = combinations.shape[0]
        return Computed(leaves=mixed, treedef=self.treedef, num_tasks=size)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """The weighted sum; one read of the gradients."""
        each = [weights] * len(self.leaves) if blocks is None else weights[blocks, :]
        sums = [
            weighted_sum(leaf, w, self.active)
            for leaf, w in zip(self.leaves, each, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, sums)

    def row(self, task: int) -> optax.Updates:
        """The gradient of one task."""
        rows = [leaf[task] for leaf in self.leaves]
        if self.active is not None:
            rows = [jnp.where(self.active[task], row, 0) for row in rows]
        return jax.tree.unflatten(self.treedef, rows)

    def stack(self) -> optax.Updates:
        """All gradients, those of inactive tasks zero."""
        stacks = [stack_rows(leaf) for leaf in self.leaves]
        if self.active is not None:
            stacks = [where_active(self.active, x, jnp.zeros_like(x)) for x in stacks]
        return jax.tree.unflatten(self.treedef, stacks)

    def as_updates(self) -> optax.Updates:
        """The stack as it came; the mask goes beside it, as `active=`."""
        return jax.tree.unflatten(self.treedef, map(stack_rows, self.leaves))
