"""Gramians of gradients so long, or so short, that their squares are no numbers."""

import math
from collections import defaultdict
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.task_grads.leaf_products import over_leaves
from mtl_optax.core.trees.any_lane import any_lane
from mtl_optax.core.trees.task_axis import over_tasks

Blocks = tuple[int, ...] | None


@partial(jax.jit, static_argnames=("tasks", "blocks"))
def in_range(
    gramian: jax.Array,
    parts: tuple[Any, ...],
    tasks: tuple[tuple[int, ...], ...],
    active: jax.Array | None,
    blocks: Blocks,
) -> tuple[jax.Array, jax.Array]:
    """The Gramian over `unit**2`, and the unit, a power of two; one for each block.

    The unit is 1 and the Gramian as it came, unless squares of the longest gradient
    overflow, or all come near to underflow (norms of 1e17 and 1e-12 in float32), or
    those of one that is not zero do (1e-15). Only then gradients are read again, each
    over a size of its own, and brought to the unit; short beside long ones as far up as
    numbers go.

    Args:
      gramian: `[T, T]`, or `[B, T, T]` for B blocks.
      parts: what is known of each leaf's gradients (a `Part`).
      tasks: for each leaf the tasks that have a row in it.
      active: `[T]` bool or None.
      blocks: of each leaf the index of its block, or None.
    """
    num_tasks = gramian.shape[-1]
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
        each = [part.largest() for part in parts]
        largest = _by_block(each, tasks, active, blocks, num_tasks)
        lost = jnp.any(short & (largest > 0), axis=-1)  # a zero row is as it should be
        room = math.ceil(math.log2(max(sum(part.terms for part in parts), 1)) / 2)
        top = (info.maxexp - 16) // 2 - room
        target = jnp.where(above | (lost & ~below), top, info.minexp // 3)
        unit = power_of_two(jnp.max(largest, axis=-1), target)
        unit = jnp.where(above | below | lost, unit, 1)

        def again(gramian: jax.Array) -> tuple[jax.Array, jax.Array]:
            units = [unit] * len(parts) if blocks is None else [unit[b] for b in blocks]
            again = _over_units(parts, each, tasks, units, num_tasks)
            return over_leaves(again, active, blocks), unit

        some = any_lane(jnp.any(above | below | lost))
        return lax.cond(some, again, as_it_is, gramian)

    # A branch under vmap too: read twice only if some lane has such gradients.
    return lax.cond(any_lane(jnp.any(doubtful)), look_closer, as_it_is, gramian)


def power_of_two(largest: jax.Array, target: Any = 0) -> jax.Array:
    """By what to divide to bring the largest number near to `2**target`; 1 for 0."""
    exponent = jnp.frexp(largest)[1] - target
    some = jnp.isfinite(largest) & (largest > 0)
    return jnp.where(some, jnp.ldexp(jnp.ones_like(largest), exponent), 1)


def as_seen(gramian: jax.Array, unit: jax.Array) -> jax.Array:
    """The Gramian as numbers hold it: squares too large stay at the largest."""
    return gramian * (jnp.minimum(unit, 1) ** 2)[..., None, None]


def _by_block(
    each: list[jax.Array],
    tasks: tuple[tuple[int, ...], ...],
    active: jax.Array | None,
    blocks: Blocks,
    num_tasks: int,
) -> jax.Array:
    """Each task's largest number `[T]`, or in each block `[B, T]`."""
    pairs = zip(each, tasks, strict=True)
    wide = [over_tasks(largest, among, num_tasks) for largest, among in pairs]
    if active is not None:
        wide = [jnp.where(active, largest, 0) for largest in wide]
    if blocks is None:
        return reduce(jnp.maximum, wide)
    of = list(zip(wide, blocks, strict=True))
    return jnp.stack(
        [
            reduce(jnp.maximum, [largest for largest, block in of if block == i])
            for i in range(max(blocks) + 1)
        ]
    )


def _over_units(
    parts: tuple[Any, ...],
    each: list[jax.Array],
    tasks: tuple[tuple[int, ...], ...],
    units: list[jax.Array],
    num_tasks: int,
) -> list[jax.Array]:
    """The Gramian of each leaf over its squared unit; one row at a time."""
    sizes = [power_of_two(largest) for largest in each]
    together: dict[tuple[int, ...], list[int]] = defaultdict(list)
    found: dict[int, jax.Array] = {}
    for i, among in enumerate(tasks):
        if hasattr(parts[i], "normal_gramian"):
            gramian, by = parts[i].normal_gramian(sizes[i]), sizes[i] / units[i]
            by = jnp.where(each[i] > 0, by, 0)
            found[i] = gramian * by[:, None] * by[None, :]
        else:
            together[among].append(i)
    for among, leaves in together.items():

        def rows(task: jax.Array, leaves: list[int] = leaves) -> list[jax.Array]:
            return [parts[i].normal_row(task, sizes[i]) for i in leaves]

        if len(among) == 1:
            gramians = [row[None] for row in rows(jnp.int32(0))]
        else:
            gramians = lax.map(rows, jnp.arange(len(among)))
        for i, gramian in zip(leaves, gramians, strict=True):
            by = jnp.where(each[i] > 0, sizes[i] / units[i], 0)
            gramian = (gramian + gramian.T) / 2 * by[:, None] * by[None, :]
            found[i] = over_tasks(gramian, among, num_tasks)
    return [found[i] for i in range(len(parts))]
