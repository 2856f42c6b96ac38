"""One table's task gradients as rows that are added into zeros."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.layerwise.views import Views, seen_as
from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_products import leaf_gramian, weighted_sum
from mtl_optax.core.task_grads.leaf_values import largest_of
from mtl_optax.core.trees.task_axis import lead, mix_tasks


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["ids", "updates"],
    meta_fields=["num_rows", "views"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows `U_t` added into a table of zeros, at the places that `ids` name."""

    ids: jax.Array  # [R] of integers; those out of range are dropped
    updates: jax.Array  # [T, R, *row]
    num_rows: int
    views: Views

    def gramian(self) -> jax.Array:
        """Of R rows in place of the table's: those looked up twice are one."""
        return leaf_gramian(self._rows_looked_up())

    def normal(self) -> tuple[jax.Array, jax.Array]:
        """The same."""
        rows = self._rows_looked_up()
        sizes = power_of_two(largest_of(rows))
        return leaf_gramian(rows.astype(sizes.dtype) / lead(sizes, rows)), sizes

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """From weighted updates, added once."""
        kind = jnp.promote_types(self.updates.dtype, jnp.float32)
        summed = weighted_sum(self.updates, weights, active, kind)
        table = self._table(summed, rounded=False)
        return table.astype(jax.eval_shape(lambda: self.row(0)).dtype)

    def pulled_again(
        self, update: jax.Array, weights: jax.Array, active: jax.Array | None
    ) -> jax.Array:
        """As it was: a table is in memory in any case."""
        del weights, active
        return update

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> "Table":
        """Of the updates."""
        mixed = mix_tasks(combinations.T, self.updates, active)
        return dataclasses.replace(self, updates=mixed)

    def row(self, i: int) -> jax.Array:
        """The table of one task."""
        return self._table(self.updates[i])

    def stack(self) -> jax.Array:
        """The tables, one after the other."""
        return lax.map(self._table, self.updates)

    def _rows_looked_up(self) -> jax.Array:
        lookups = self.ids.shape[0]
        kept, places = jnp.unique(self._places(), return_inverse=True, size=lookups)
        places = jnp.where(kept[places] < self.num_rows, places, lookups)
        return _added(self.updates, places, lookups)

    def _table(self, updates: jax.Array, *, rounded: bool = True) -> jax.Array:
        table = _added(updates[None], self._places(), self.num_rows)
        return seen_as(table[0], self.views, rounded=rounded)

    def _places(self) -> jax.Array:
        """The ids, those out of range at the one behind the last row."""
        known = (self.ids >= 0) & (self.ids < self.num_rows)
        return jnp.where(known, self.ids, self.num_rows)


def _added(updates: jax.Array, places: jax.Array, size: int) -> jax.Array:
    table = jnp.zeros((updates.shape[0], size, *updates.shape[2:]), updates.dtype)
    return table.at[:, places].add(updates, mode="drop")
