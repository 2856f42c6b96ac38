"""One leaf's task gradients as values, and what every part can do."""

import dataclasses
import math
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.task_grads.leaf_products import (
    PAIRED,
    LeafRows,
    leaf_gramian,
    stack_rows,
    weighted_sum,
)
from mtl_optax.core.trees.task_axis import lead, mix_tasks


class Part(Protocol):
    """What is kept of one leaf's gradients, of which it has one row a task."""

    @property
    def terms(self) -> int:
        """The square of a row is the sum of at most so many squares of numbers."""

    def gramian(self) -> jax.Array:
        """Inner products of all pairs of rows."""

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """The weighted sum of the rows, `[*param]`."""

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> Any:
        """S weighted sums of the rows; weights `[S, T]`."""

    def row(self, i: int) -> jax.Array:
        """One row, `[*param]`."""

    def largest(self) -> jax.Array:
        """Of each row the largest number, or a bound that is near to it `[T]`."""

    def normal_row(self, task: jax.Array, sizes: jax.Array) -> jax.Array:
        """One row `[T]` of the Gramian of rows over their sizes; little memory."""


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Values:
    """A stack `[T, *param]`, or T arrays `[*param]`."""

    rows: LeafRows

    @property
    def terms(self) -> int:
        """Numbers of a row."""
        return math.prod(self.rows[0].shape)

    def gramian(self) -> jax.Array:
        """One read of the rows."""
        return leaf_gramian(self.rows)

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """One read of the rows."""
        return weighted_sum(self.rows, weights, active)

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> "Values":
        """As values, in the dtype of the combinations."""
        return Values(rows=mix_tasks(combinations.T, stack_rows(self.rows), active))

    def row(self, i: int) -> jax.Array:
        """As it is."""
        return self.rows[i]

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


def largest_of(rows: jax.Array) -> jax.Array:
    """The largest number of each row `[T]`."""
    numbers = jnp.abs(rows).astype(jnp.result_type(float))
    return jnp.max(numbers, axis=range(1, rows.ndim), initial=0)
