"""Vectors `[T]` beside arrays with a leading task axis, `[T, ...]`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def lead(vector: jax.Array, like: jax.Array) -> jax.Array:
    """A vector `[T]` shaped to multiply or mask an array `[T, ...]`."""
    return vector.reshape(vector.shape + (1,) * (like.ndim - 1))


def where_active(active: jax.Array, new: Any, old: Any) -> Any:
    """State with leaves `[T, ...]`: the new one at active tasks, else the old one."""
    return jax.tree.map(lambda n, o: jnp.where(lead(active, n), n, o), new, old)


def mix_tasks(
    weights: jax.Array, rows: jax.Array, active: jax.Array | None
) -> jax.Array:
    """Sums over tasks of `weights` `[T, ...]` times `rows` `[T, *param]`, masked.

    `[..., *param]`, in the dtype of the weights.
    """
    if active is not None:
        mask = lax.broadcast_in_dim(active, rows.shape, (0,))
        rows = jnp.where(mask, rows, 0)
    return lax.dot_general(
        weights,
        rows,
        (((0,), (0,)), ((), ())),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=weights.dtype,
    )
