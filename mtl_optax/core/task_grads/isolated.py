"""One sum over all tasks, looked at before it is believed.

A sum that was pulled back in one pass cannot tell tasks apart: where an absent one left
a NaN in the forward pass, its weight 0 multiplies it. This is rare, so the sum is made
row by row only then.
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.trees.any_lane import any_lane


def unless_nonfinite(
    once: Any, active: jax.Array | None, apart: Callable[[], Any]
) -> Any:
    """`once`, or `apart()` where that is not finite and a task is not active.

    Without `active` nothing is asked. A mean over devices comes after, since only one
    of both is computed.
    """
    if active is None:
        return once
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(once)]
    odd = ~reduce(operator.and_, finite, jnp.array(True)) & ~jnp.all(active)
    return lax.cond(any_lane(_on_any_device(odd)), apart, lambda: once)


def masked_sum(
    rows: Callable[[int], Any], weights: jax.Array, active: jax.Array, like: Any
) -> Any:
    """`sum_t w_t rows(t)` without the rows of inactive tasks, one row after the other.

    Summed in the dtype of `weights`, and cast to those of `like`.
    """

    def adding(task: int) -> Callable[[Any], Any]:
        def one(row: jax.Array, so_far: jax.Array) -> jax.Array:
            term = weights[task] * row.astype(weights.dtype)
            return so_far + jnp.where(active[task], term, 0)

        return lambda total: jax.tree.map(one, rows(task), total)

    def zeros(leaf: jax.Array) -> jax.Array:
        zero = jnp.zeros_like(leaf, weights.dtype)
        return jnp.where(leaf == leaf, zero, 0)  # varies over a mesh as the leaf does

    # A loop holds one row at a time, where a sum written out would hold them all.
    tasks = range(weights.shape[0])
    branches = [adding(task) for task in tasks]
    total, _ = lax.scan(
        lambda total, task: (lax.switch(task, branches, total), None),
        jax.tree.map(zeros, like),
        jnp.arange(len(tasks)),
    )
    return jax.tree.map(lambda x, same: x.astype(same.dtype), total, like)


def _on_any_device(odd: jax.Array) -> jax.Array:
    # All devices branch alike inside jax.shard_map: a loss may average over a mapped
    # axis (batch statistics), and then its backward pass waits for the others.
    axes = tuple(jax.sharding.get_abstract_mesh().manual_axes)
    return lax.psum(odd.astype(jnp.int32), axes) > 0 if axes else odd
