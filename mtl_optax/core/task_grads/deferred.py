"""Task gradients leaf by leaf: factors of which no Jacobian was made, or values."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mtl_optax.core.task_grads.form import Fold
from mtl_optax.core.task_grads.in_range import in_one_unit, in_range
from mtl_optax.core.task_grads.leaf_products import over_leaves, row_like
from mtl_optax.core.task_grads.leaf_values import OfLeaf, Values
from mtl_optax.core.task_grads.not_a_tree import NoArithmetic, not_a_tree
from mtl_optax.core.trees.cut_tasks import tasks_together
from mtl_optax.core.trees.leaves import only
from mtl_optax.core.trees.task_axis import (
    along_rows,
    over_tasks,
    rows_of_all,
    where_active,
)


@not_a_tree
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Deferred(NoArithmetic):
    """Of each leaf the rows of those tasks that reach it; the others' are zero."""

    leaves: tuple[OfLeaf, ...]
    treedef: Any
    num_tasks: int
    names: tuple[Any, ...] | None = None
    losses: jax.Array | None = None
    active: jax.Array | None = None
    # Known products `[leaves, T, T]` of rows over sizes, and these `[leaves, T]`.
    normal: tuple[jax.Array, jax.Array] | None = None

    measured = True

    @classmethod
    def stacked(cls, tree: Any, num_tasks: int | None = None) -> "Deferred":
        """From a tree of `[T, *param]`; T is read from the first leaf if not given."""
        leaves, treedef = jax.tree.flatten(tree)
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        if num_tasks is None:
            num_tasks = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
        every = tuple(range(num_tasks))
        given = [
            OfLeaf(Values(rows=array), every, row_like(array), "it was given")
            for array in arrays
        ]
        return cls(leaves=tuple(given), treedef=treedef, num_tasks=num_tasks)

    def together(self, params: optax.Params | None) -> "Deferred":
        """A stack whose tasks lie apart on a mesh, with all of them on each device."""
        like = [None] * len(self.leaves) if params is None else jax.tree.leaves(params)
        leaves = []
        for leaf, param in zip(self.leaves, like, strict=True):
            rows, row = tasks_together(leaf.part.stack(), param)
            leaves.append(leaf._replace(part=Values(rows=rows, out=row)))
        return dataclasses.replace(self, leaves=tuple(leaves))

    def like(self) -> optax.Params:
        """A tree of shapes and dtypes like one row."""
        return jax.tree.unflatten(self.treedef, [leaf.like for leaf in self.leaves])

    def select(self, kept: tuple[bool, ...]) -> "Deferred":
        """On the kept leaves only; the others become MaskedNode."""
        pairs = zip(self.leaves, kept, strict=True)
        places = jax.tree.unflatten(self.treedef, range(len(kept)))
        at = np.flatnonzero(kept)
        known = self.normal if at.size else None
        return dataclasses.replace(
            self,
            leaves=tuple(leaf for leaf, keep in pairs if keep),
            treedef=jax.tree.structure(only(places, kept)),
            normal=None if known is None else (known[0][at], known[1][at]),
        )

    def at_parameters(self) -> "Deferred":
        """These."""
        return self

    def computed(self) -> "Deferred":
        """These."""
        return self

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """Inner products of all pairs."""
        if self.normal is not None:
            gramian, unit = self.measure(blocks)
            return gramian * (unit**2)[..., None, None]
        each = [
            over_tasks(leaf.part.gramian(), leaf.tasks, self.num_tasks)
            for leaf in self.leaves
        ]
        return over_leaves(each, self.active, blocks)

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The Gramian in a unit in which it is finite, and that unit."""
        if self.normal is not None:
            return in_one_unit(*self.normal, self.active, blocks)
        parts = tuple(leaf.part for leaf in self.leaves)
        tasks = tuple(leaf.tasks for leaf in self.leaves)
        return in_range(parts, tasks, self.num_tasks, self.active, blocks)

    def mix(self, combinations: jax.Array) -> "Deferred":
        """S weighted sums of the rows, `[S, T]`; of factors where these are kept."""
        size = combinations.shape[0]
        mixed = [
            leaf._replace(
                part=leaf.part.mix(
                    combinations[:, np.array(leaf.tasks)], self._active(leaf)
                ),
                tasks=tuple(range(size)),
            )
            for leaf in self.leaves
        ]
        return Deferred(leaves=tuple(mixed), treedef=self.treedef, num_tasks=size)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """The weighted sum: one product a weight, from factors weighted first."""
        each = [weights] * len(self.leaves) if blocks is None else weights[blocks, :]
        sums = [
            leaf.part.pull(self._among(leaf, w), self._active(leaf))
            for leaf, w in zip(self.leaves, each, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, sums)

    def pulled_again(self, update: optax.Updates, weights: jax.Array) -> optax.Updates:
        """Leaf by leaf as it was, or summed anew."""
        pairs = zip(self.leaves, jax.tree.leaves(update), strict=True)
        again = [
            leaf.part.pulled_again(one, self._among(leaf, weights), self._active(leaf))
            for leaf, one in pairs
        ]
        return jax.tree.unflatten(self.treedef, again)

    def along(self, direction: optax.Updates) -> jax.Array:
        """The inner product of each gradient with a tree like one, `[T]`."""
        pairs = zip(self.leaves, jax.tree.leaves(direction), strict=True)
        each = [
            over_tasks(along_rows(leaf.part.stack(), d), leaf.tasks, self.num_tasks)
            for leaf, d in pairs
        ]
        products = sum(each, jnp.zeros(self.num_tasks))
        return products if self.active is None else jnp.where(self.active, products, 0)

    def row(self, task: int) -> optax.Updates:
        """The gradient of one task."""

        def of(leaf: OfLeaf) -> jax.Array:
            if task not in leaf.tasks:
                return jnp.zeros_like(leaf.like)
            row = leaf.part.row(leaf.tasks.index(task))
            return row if self.active is None else jnp.where(self.active[task], row, 0)

        return jax.tree.unflatten(self.treedef, map(of, self.leaves))

    def one(self, task: jax.Array) -> optax.Updates:
        """The same of a task whose index may be traced."""
        present = None if self.active is None else self.active[task]

        def of(stack: jax.Array) -> jax.Array:
            row = lax.dynamic_index_in_dim(stack, task, keepdims=False)
            return row if present is None else jnp.where(present, row, 0)

        return jax.tree.map(of, self.tree())

    def some(self, chosen: jax.Array) -> optax.Updates:
        """The stack with zeros for tasks not chosen."""
        present = chosen if self.active is None else chosen & self.active
        zeroed = partial(where_active, present)
        return jax.tree.map(lambda x: zeroed(x, jnp.zeros_like(x)), self.tree())

    def stack(self) -> optax.Updates:
        """All gradients, those of inactive tasks zero."""
        if self.active is None:
            return self.tree()
        return self.some(self.active)

    def as_updates(self) -> Any:
        """These if they know more than the stack; a mask goes beside it."""
        return self.tree() if self.normal is None else self

    def tree(self) -> optax.Updates:
        """The stack without the mask."""
        stacks = [
            rows_of_all(leaf.part.stack(), leaf.tasks, self.num_tasks)
            for leaf in self.leaves
        ]
        return jax.tree.unflatten(self.treedef, stacks)

    def folded(self, total: Any, fold: Fold) -> Any:
        """A stack `[T, *param]` with these folded in, leaf by leaf."""
        return jax.tree.map(lambda x, new: fold(x, new, None), total, self.stack())

    def _active(self, leaf: OfLeaf) -> jax.Array | None:
        return None if self.active is None else self._among(leaf, self.active)

    def _among(self, leaf: OfLeaf, vector: jax.Array) -> jax.Array:
        """Of values `[T]` those of the tasks that have a row in the leaf."""
        whole = len(leaf.tasks) == self.num_tasks
        return vector if whole else vector[np.array(leaf.tasks)]
