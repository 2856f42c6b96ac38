"""One leaf's task gradients as values, and what every part can do."""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_products import (
    PAIRED,
    UNROLLED,
    LeafRows,
    leaf_gramian,
    row_like,
    stack_rows,
    weighted_sum,
)
from mtl_optax.core.trees.cut_tasks import of_stack
from mtl_optax.core.trees.replicated import placed
from mtl_optax.core.trees.task_axis import lead, mix_tasks

# Numbers of a row up to which it is always read twice.
_SMALL = 2**12


class Part(Protocol):
    """What is kept of one leaf's gradients, of which it has one row a task."""

    def pulled_again(
        self, update: jax.Array, weights: jax.Array, active: jax.Array | None
    ) -> jax.Array:
        """`update`, which is `pull(weights, active)`, for a reader in a branch."""

    def gramian(self) -> jax.Array:
        """Inner products of all pairs of rows."""

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """The weighted sum of the rows, `[*param]`."""

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> Any:
        """S weighted sums of the rows; weights `[S, T]`."""

    def row(self, i: int) -> jax.Array:
        """One row, `[*param]`."""

    def stack(self) -> jax.Array:
        """All of them, `[T, *param]`."""

    def normal(self) -> tuple[jax.Array, jax.Array | None]:
        """The Gramian of rows over their sizes, and these, which are powers of two.

        None in place of sizes for that of the rows, whose squares may be no numbers;
        then `largest` and `normal_row` are there to read them again.
        """


class OfLeaf(NamedTuple):
    """What is known of one leaf's gradients."""

    part: Part
    tasks: tuple[int, ...]  # that have a row in it
    like: Any  # one row, or its shape and dtype
    why: str  # it has this form


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["out"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Values:
    """A stack `[T, *param]`, or T arrays `[*param]`."""

    rows: LeafRows
    out: Any = None  # the sharding of a row that is handed on; None: that of the rows

    def gramian(self) -> jax.Array:
        """One read of the rows."""
        return leaf_gramian(self.rows)

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """One read of the rows."""
        return self._out(weighted_sum(self.rows, weights, active))

    def pulled_again(
        self, update: jax.Array, weights: jax.Array, active: jax.Array | None
    ) -> jax.Array:
        """Summed anew, unless XLA would stack many rows or not fuse the first sum.

        What a branch reads from outside would be written to memory at every step.
        """
        if not isinstance(self.rows, tuple):
            return mix_tasks(weights, self.rows, active).astype(update.dtype)
        if len(self.rows) > UNROLLED:
            return update
        return weighted_sum(self.rows, weights, active)

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> "Values":
        """As values, in the dtype of the combinations."""
        mixed = mix_tasks(combinations.T, stack_rows(self.rows), active)
        return dataclasses.replace(self, rows=mixed)

    def row(self, i: int) -> jax.Array:
        """As it is."""
        return self._out(self.rows[i])

    def stack(self) -> jax.Array:
        """As it is, or one copy."""
        rows = stack_rows(self.rows)
        return rows if self.out is None else placed(rows, of_stack(self.out))

    def normal(self) -> tuple[jax.Array, jax.Array | None]:
        """With sizes where one more read costs next to nothing."""
        if math.prod(row_like(self.rows).shape) > _SMALL:
            return self.gramian(), None
        sizes = power_of_two(self.largest())
        rows = stack_rows(self.rows).astype(sizes.dtype)
        return leaf_gramian(rows / lead(sizes, rows)), sizes

    def largest(self) -> jax.Array:
        """The largest numbers themselves."""
        return largest_of(stack_rows(self.rows))

    def normal_row(self, task: jax.Array, sizes: jax.Array) -> jax.Array:
        """One read of the rows, and a copy of one."""
        # Both sizes on one side: XLA would keep a copy of the whole other side.
        if isinstance(self.rows, tuple) and len(self.rows) <= PAIRED:
            row = lax.switch(task, [lambda x=x: x for x in self.rows])
            row = row.astype(sizes.dtype) / sizes[task]
            pairs = zip(self.rows, sizes, strict=True)
            return jnp.stack([jnp.sum(x * (row / size)) for x, size in pairs])
        rows = stack_rows(self.rows)
        row = lax.dynamic_index_in_dim(rows, task).astype(sizes.dtype) / sizes[task]
        return jnp.sum(rows * (row / lead(sizes, rows)), axis=range(1, rows.ndim))

    def _out(self, row: jax.Array) -> jax.Array:
        return row if self.out is None else placed(row, self.out)


def largest_of(rows: jax.Array, kept: int = 1) -> jax.Array:
    """The largest number of each row `[T]`; of so many first axes."""
    # Not of jnp.abs(rows), of which XLA's CPU makes a copy.
    axes = range(kept, rows.ndim)
    above, below = (f(rows, axis=axes, initial=0) for f in (jnp.max, jnp.min))
    return jnp.maximum(above, -below).astype(jnp.result_type(float))
