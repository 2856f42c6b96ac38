"""The gradients of all samples, as operands of the sums that would add them up."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.per_sample.leaves import OwnRows, Samples
from mtl_optax.core.task_grads.computed import Computed
from mtl_optax.core.task_grads.leaf_products import over_leaves
from mtl_optax.core.trees.leaves import only
from mtl_optax.core.trees.task_axis import where_active


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampleGrads:
    """One part a leaf; None where the losses do not depend on it."""

    parts: tuple[Samples | OwnRows | None, ...]
    leaves: tuple[jax.Array, ...]  # the parameters, for shapes and dtypes
    treedef: Any
    num_tasks: int
    names: tuple[Any, ...] | None = None
    losses: jax.Array | None = None
    active: jax.Array | None = None

    measured = True

    def like(self) -> optax.Params:
        """A tree of shapes and dtypes like one row."""
        return jax.tree.unflatten(self.treedef, self.leaves)

    def select(self, kept: tuple[bool, ...]) -> "SampleGrads":
        """On the kept leaves only; the others become MaskedNode."""
        chosen = [i for i, keep in enumerate(kept) if keep]
        places = jax.tree.unflatten(self.treedef, range(len(kept)))
        return dataclasses.replace(
            self,
            parts=tuple(self.parts[i] for i in chosen),
            leaves=tuple(self.leaves[i] for i in chosen),
            treedef=jax.tree.structure(only(places, kept)),
        )

    def at_parameters(self) -> "SampleGrads":
        """These."""
        return self

    def computed(self) -> "SampleGrads":
        """These."""
        return self

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """Inner products of all pairs."""
        zeros = jnp.zeros((self.num_tasks, self.num_tasks))
        each = [zeros if part is None else part.gramian() for part in self.parts]
        return over_leaves(each, self.active, blocks)

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The Gramian in a unit in which it is finite, and that unit."""
        gramian = self.gramian(blocks)
        return gramian, jnp.ones(gramian.shape[:-2], gramian.dtype)

    def mix(self, combinations: jax.Array) -> Computed:
        """S weighted sums of the rows `[S, B]`, which makes all rows."""
        return Computed.stacked(self.stack(), self.num_tasks).mix(combinations)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """The weighted sum: the last products only, of weighted cotangents."""
        each = [weights] * len(self.parts) if blocks is None else weights[blocks, :]
        sums = [
            jnp.zeros_like(leaf) if part is None else part.pull(w, self.active)
            for part, leaf, w in zip(self.parts, self.leaves, each, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, sums)

    def row(self, task: int) -> optax.Updates:
        """The gradient of one sample."""
        rows = [
            jnp.zeros_like(leaf) if part is None else part.row(task)
            for part, leaf in zip(self.parts, self.leaves, strict=True)
        ]
        if self.active is not None:
            rows = [jnp.where(self.active[task], row, 0) for row in rows]
        return jax.tree.unflatten(self.treedef, rows)

    def stack(self) -> optax.Updates:
        """All gradients, those of inactive samples zero."""
        stacks = [
            jnp.zeros((self.num_tasks, *jnp.shape(leaf)), leaf.dtype)
            if part is None
            else part.stack()
            for part, leaf in zip(self.parts, self.leaves, strict=True)
        ]
        if self.active is not None:
            stacks = [where_active(self.active, x, jnp.zeros_like(x)) for x in stacks]
        return jax.tree.unflatten(self.treedef, stacks)

    def as_updates(self) -> optax.Updates:
        """The stack."""
        return self.stack()
