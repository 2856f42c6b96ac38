"""Task gradients over their lengths, beside one more vector."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.cancellation import zero_if_noise
from mtl_optax.core.solvers import linalg
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.linearised import LazyTaskGrads


class UnitGradients(NamedTuple):
    """T of them; a gradient of zero stays zero, and its length counts as 1."""

    rows: TaskGrads  # not yet divided
    gramian: jax.Array  # [T, T] of these, over unit**2
    unit: jax.Array
    lengths: jax.Array  # [T]
    cosines: jax.Array  # [T, T] inner products, 0 with a gradient of zero
    along: jax.Array  # [T] inner products with the other vector

    def pull(self, weights: jax.Array) -> optax.Updates:
        """The weighted sum; zeros if it is noise."""
        weights = weights / self.lengths
        return zero_if_noise(self.rows, weights, self.gramian, self.unit)


def unit_gradients(gradients: LazyTaskGrads, other: optax.Params) -> UnitGradients:
    """Lazy gradients, and a tree like one of them."""
    rows = gradients.computed()
    gramian, unit = rows.measure()
    cosines, norms = linalg.cosine_matrix(gramian)
    some = norms > 0
    lengths = jnp.where(some, norms * unit, 1)
    cosines = jnp.where(some[:, None] & some[None, :], cosines, 0)
    each = [jnp.max(jnp.abs(x), initial=0) for x in jax.tree.leaves(other)]
    largest = jnp.max(jnp.stack(each)).astype(unit.dtype)
    largest = jnp.where(largest > 0, largest, 1)  # with all of it may be no numbers
    short = jax.tree.map(lambda x: x / largest.astype(x.dtype), other)
    along = gradients.along(short) / lengths * largest
    return UnitGradients(rows, gramian, unit, lengths, cosines, along)
