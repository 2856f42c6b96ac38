"""Task gradients layer by layer, as factors of which no Jacobian was made."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_optax.core.task_grads.in_range import in_range
from mtl_optax.core.task_grads.leaf_products import over_leaves
from mtl_optax.core.task_grads.leaf_values import Part
from mtl_optax.core.trees.leaves import only
from mtl_optax.core.trees.task_axis import over_tasks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Deferred:
    """Of each leaf the rows of those tasks that reach it; the others' are zero."""

    parts: tuple[Part, ...]
    tasks: tuple[tuple[int, ...], ...]
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

    def select(self, kept: tuple[bool, ...]) -> "Deferred":
        """On the kept leaves only; the others become MaskedNode."""
        chosen = [i for i, keep in enumerate(kept) if keep]
        places = jax.tree.unflatten(self.treedef, range(len(kept)))
        return dataclasses.replace(
            self,
            parts=tuple(self.parts[i] for i in chosen),
            tasks=tuple(self.tasks[i] for i in chosen),
            leaves=tuple(self.leaves[i] for i in chosen),
            treedef=jax.tree.structure(only(places, kept)),
        )

    def at_parameters(self) -> "Deferred":
        """These."""
        return self

    def computed(self) -> "Deferred":
        """These."""
        return self

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """Inner products of all pairs."""
        each = [
            over_tasks(part.gramian(), tasks, self.num_tasks)
            for part, tasks in zip(self.parts, self.tasks, strict=True)
        ]
        return over_leaves(each, self.active, blocks)

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The Gramian in a unit in which it is finite, and that unit."""
        return in_range(self.parts, self.tasks, self.num_tasks, self.active, blocks)

    def mix(self, combinations: jax.Array) -> "Deferred":
        """S weighted sums of the rows, `[S, T]`; of factors where these are kept."""
        size = combinations.shape[0]
        pairs = zip(self.parts, self.tasks, strict=True)
        mixed = tuple(
            part.mix(combinations[:, tasks], self._active_among(tasks))
            for part, tasks in pairs
        )
        return dataclasses.replace(
            self,
            parts=mixed,
            tasks=(tuple(range(size)),) * len(mixed),
            num_tasks=size,
            names=None,
            losses=None,
            active=None,
        )

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """The weighted sum: one product a weight, from factors weighted first."""
        each = [weights] * len(self.parts) if blocks is None else weights[blocks, :]
        rows = zip(self.parts, self.tasks, each, strict=True)
        sums = [
            part.pull(w[np.array(tasks)], self._active_among(tasks))
            for part, tasks, w in rows
        ]
        return jax.tree.unflatten(self.treedef, sums)

    def row(self, task: int) -> optax.Updates:
        """The gradient of one task."""
        rows = []
        for part, tasks, leaf in zip(self.parts, self.tasks, self.leaves, strict=True):
            known = task in tasks
            row = part.row(tasks.index(task)) if known else jnp.zeros_like(leaf)
            if known and self.active is not None:
                row = jnp.where(self.active[task], row, 0)
            rows.append(row)
        return jax.tree.unflatten(self.treedef, rows)

    def stack(self) -> optax.Updates:
        """All gradients, those of inactive tasks zero."""
        rows = [self.row(task) for task in range(self.num_tasks)]
        return jax.tree.map(lambda *rows: jnp.stack(rows), *rows)

    def as_updates(self) -> optax.Updates:
        """The stack."""
        return self.stack()

    def _active_among(self, tasks: tuple[int, ...]) -> jax.Array | None:
        return None if self.active is None else self.active[np.array(tasks)]
