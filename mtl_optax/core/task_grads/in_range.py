"""Gramians of gradients so long, or so short, that their squares are no numbers."""

import math
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.task_grads.leaf_products import (
    PAIRED,
    LeafRows,
    over_leaves,
    row_like,
    stack_rows,
)
from mtl_optax.core.trees.any_lane import any_lane
from mtl_optax.core.trees.task_axis import lead

Blocks = tuple[int, ...] | None


@partial(jax.jit, static_argnames="blocks")
def in_range(
    gramian: jax.Array,
    leaves: tuple[LeafRows, ...],
    active: jax.Array | None,
    blocks: Blocks,
) -> tuple[jax.Array, jax.Array]:
    """The Gramian over `unit**2`, and the unit, a power of two; one for each block.

    The unit is 1 and the Gramian as it came, unless squares of the longest gradient
    overflow, or all come near to underflow (norms of 1e17 and 1e-12 in float32), or
    those of one that is not zero do (1e-15). Only then gradients are read again,
    divided by the unit that brings them inside; short beside long ones as far up as
    numbers go.
    """
    info = jnp.finfo(gramian.dtype)
    squares = jnp.diagonal(gramian, axis1=-2, axis2=-1)
    longest = jnp.max(squares, axis=-1)
    above = ~(longest <= 2.0 ** (info.maxexp - 14))  # or not a number
    below = longest < 2.0 ** (info.minexp + 46)
    short = squares < 2.0 ** (info.minexp + 26)
    if active is not None:
        short &= jnp.broadcast_to(active, short.shape)
    doubtful = above | below | jnp.any(short, axis=-1)

    def as_it_is(gramian: jax.Array) -> tuple[jax.Array, jax.Array]:
        return gramian, jnp.ones_like(longest)

    def look_closer(gramian: jax.Array) -> tuple[jax.Array, jax.Array]:
        largest = _largest(leaves, active, blocks)
        lost = jnp.any(short & (largest > 0), axis=-1)  # a zero row is as it should be
        sizes = [math.prod(row_like(leaf).shape) for leaf in leaves]
        room = math.ceil(math.log2(max(sum(sizes), 1)) / 2)
        top = (info.maxexp - 16) // 2 - room
        target = jnp.where(above | (lost & ~below), top, info.minexp // 3)
        unit = power_of_two(jnp.max(largest, axis=-1), target)
        unit = jnp.where(above | below | lost, unit, 1)

        def again(gramian: jax.Array) -> tuple[jax.Array, jax.Array]:
            each = [unit] * len(leaves) if blocks is None else [unit[b] for b in blocks]
            return over_leaves(_row_by_row(leaves, each), active, blocks), unit

        some = any_lane(jnp.any(above | below | lost))
        return lax.cond(some, again, as_it_is, gramian)

    # A branch under vmap too: read twice only if some lane has such gradients.
    return lax.cond(any_lane(jnp.any(doubtful)), look_closer, as_it_is, gramian)


def _row_by_row(
    leaves: tuple[LeafRows, ...], units: list[jax.Array]
) -> list[jax.Array]:
    """`leaf_gramian` of each over its squared unit; copies one row at a time."""
    leaves = tuple(
        stack_rows(leaf) if isinstance(leaf, tuple) and len(leaf) > PAIRED else leaf
        for leaf in leaves
    )

    def products(leaf: LeafRows, unit: jax.Array, task: jax.Array) -> jax.Array:
        # The unit twice on one side: XLA would keep a copy of the whole other side.
        if isinstance(leaf, tuple):
            row = lax.switch(task, [lambda x=x: x for x in leaf])
            row = row.astype(unit.dtype) / unit / unit
            return jnp.stack([jnp.sum(x * row) for x in leaf])
        row = lax.dynamic_index_in_dim(leaf, task).astype(unit.dtype) / unit / unit
        return jnp.sum(leaf * row, axis=range(1, leaf.ndim))

    def of_all(task: jax.Array) -> list[jax.Array]:
        pairs = zip(leaves, units, strict=True)
        return [products(leaf, unit, task) for leaf, unit in pairs]

    each = lax.map(of_all, jnp.arange(len(leaves[0])))
    return [(gramian + gramian.T) / 2 for gramian in each]


def as_seen(gramian: jax.Array, unit: jax.Array) -> jax.Array:
    """The Gramian as numbers hold it: squares too large stay at the largest."""
    return gramian * (jnp.minimum(unit, 1) ** 2)[..., None, None]


def power_of_two(largest: jax.Array, target: Any = 0) -> jax.Array:
    """By what to divide to bring the largest number near to `2**target`; 1 for 0."""
    exponent = jnp.frexp(largest)[1] - target
    some = jnp.isfinite(largest) & (largest > 0)
    return jnp.where(some, jnp.ldexp(jnp.ones_like(largest), exponent), 1)


def _largest(
    leaves: tuple[LeafRows, ...], active: jax.Array | None, blocks: Blocks
) -> jax.Array:
    """Each task's largest coordinate `[T]`, or in each block `[B, T]`."""

    def of_leaf(leaf: LeafRows) -> jax.Array:
        rows = jnp.abs(stack_rows(leaf)).astype(jnp.result_type(float))
        if active is not None:
            rows = jnp.where(lead(active, rows), rows, 0)
        return jnp.max(rows, axis=range(1, rows.ndim), initial=0)

    each: list[Any] = [of_leaf(leaf) for leaf in leaves]
    if blocks is None:
        return reduce(jnp.maximum, each)
    pairs = list(zip(each, blocks, strict=True))
    return jnp.stack(
        [
            reduce(jnp.maximum, [value for value, block in pairs if block == i])
            for i in range(max(blocks) + 1)
        ]
    )
