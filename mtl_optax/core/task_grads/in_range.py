"""Gramians of gradients so long, or so short, that their squares are no numbers."""

import operator
from collections import defaultdict
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_optax.core.task_grads.leaf_products import masked_gramian
from mtl_optax.core.trees.any_lane import any_lane
from mtl_optax.core.trees.task_axis import over_tasks

Tasks = tuple[int, ...]
# Of one leaf, for the tasks that have a row in it: Gramian of rows over their sizes,
# and the sizes, powers of two.
Normal = tuple[jax.Array, jax.Array]


@partial(jax.jit, static_argnames=("tasks", "num_tasks", "blocks"))
def in_range(
    parts: tuple[Any, ...],
    tasks: tuple[Tasks, ...],
    num_tasks: int,
    active: jax.Array | None,
    blocks: tuple[int, ...] | None,
) -> tuple[jax.Array, jax.Array]:
    """The Gramian over `unit**2`, and the unit, a power of two; one for each block.

    The unit is 1, unless the longest gradient's square would overflow, or all squares
    come near to underflow (norms of 1e17 and 1e-12 in float32), or that of one that is
    not zero does (1e-15); short beside long ones as far up as numbers go.

    Args:
      parts: what is known of each leaf's gradients (a `Part`).
      tasks: for each leaf the tasks that have a row in it.
      num_tasks: T.
      active: `[T]` bool or None.
      blocks: of each leaf the index of its block, or None.
    """
    each = [part.normal() for part in parts]
    if any(sizes is None for _, sizes in each):
        each = _reread_if_doubtful(each, parts, tasks, num_tasks, active)

    wide = [
        (over_tasks(gramian, t, num_tasks), over_tasks(sizes, t, num_tasks, 1))
        for (gramian, sizes), t in zip(each, tasks, strict=True)
    ]

    gramians, sizes = zip(*wide, strict=True)
    return in_one_unit(jnp.stack(gramians), jnp.stack(sizes), active, blocks)


def in_one_unit(
    gramians: jax.Array,
    sizes: jax.Array,
    active: jax.Array | None,
    blocks: tuple[int, ...] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The same from `[leaves, T, T]` of rows over sizes `[leaves, T]`."""
    if blocks is not None:
        places = [np.flatnonzero(np.equal(blocks, i)) for i in range(max(blocks) + 1)]
        found = [in_one_unit(gramians[at], sizes[at], active) for at in places]
        return tuple(map(jnp.stack, zip(*found, strict=True)))  # type: ignore[return-value]
    squares = jnp.diagonal(gramians, axis1=1, axis2=2)
    norms = jnp.max(jnp.log2(squares) / 2 + jnp.log2(sizes), axis=0)
    unit = _unit(norms if active is None else jnp.where(active, norms, -jnp.inf))
    by = sizes / unit
    total = jnp.sum(gramians * by[:, :, None] * by[:, None, :], axis=0)
    return masked_gramian(total, active), unit


def _unit(norms: jax.Array) -> jax.Array:
    """The unit for norms of which these are the exponents `[T]`, -inf for zero."""
    info = jnp.finfo(norms.dtype)
    longest = jnp.max(norms)
    above = longest > info.maxexp // 2 - 7
    below = longest < info.minexp // 2 + 23
    short = (norms < info.minexp // 2 + 13) & jnp.isfinite(norms)
    lost = jnp.any(short)
    target = jnp.where(above | (lost & ~below), info.maxexp // 2 - 8, info.minexp // 3)
    needed = (above | below | lost) & jnp.isfinite(longest)
    exponent = jnp.where(needed, jnp.ceil(longest) - target, 0)
    return jnp.ldexp(jnp.ones_like(longest), exponent.astype(int))


def _reread_if_doubtful(
    each: list[Any],
    parts: tuple[Any, ...],
    tasks: tuple[Tasks, ...],
    num_tasks: int,
    active: jax.Array | None,
) -> list[Normal]:
    """Gramians as they came; where some squares are no numbers, of normal rows."""
    raw = [i for i, (_, sizes) in enumerate(each) if sizes is None]
    ones = {i: jnp.ones(each[i][0].shape[0]) for i in raw}
    known = [
        (gramian, ones[i] if sizes is None else sizes)
        for i, (gramian, sizes) in enumerate(each)
    ]

    def as_they_came() -> list[Normal]:
        return [known[i] for i in raw]

    some = [parts[i] for i in raw], [tasks[i] for i in raw]

    def reread() -> list[Normal]:
        return _rows_over_sizes(*some)

    above, short = _doubtful(known, tasks, num_tasks, active)

    def look_closer() -> list[Normal]:
        lost = short & _not_zero(*some, num_tasks)  # a zero row is as it should be
        return lax.cond(any_lane(above | jnp.any(lost)), reread, as_they_came)

    # A branch under vmap too: read twice only if some lane has such gradients.
    found = lax.cond(any_lane(above | jnp.any(short)), look_closer, as_they_came)
    for i, one in zip(raw, found, strict=True):
        known[i] = one
    return known


def _doubtful(
    each: list[Normal],
    tasks: tuple[Tasks, ...],
    num_tasks: int,
    active: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Whether some square is no number, and of which tasks `[T]` it is hardly one."""
    squares = jnp.zeros(num_tasks)
    for (gramian, sizes), among in zip(each, tasks, strict=True):
        square = jnp.diagonal(gramian) * sizes * sizes
        squares += over_tasks(square, among, num_tasks)
    info = jnp.finfo(squares.dtype)
    above = ~(squares <= 2.0 ** (info.maxexp - 14))  # or not a number
    short = squares < 2.0 ** (info.minexp + 26)
    if active is not None:
        above, short = above & active, short & active
    return jnp.any(above), short


def _not_zero(parts: list[Any], tasks: list[Tasks], num_tasks: int) -> jax.Array:
    """Which tasks' gradients `[T]` are not all zero."""
    found = [
        over_tasks(part.largest() > 0, among, num_tasks, False)
        for part, among in zip(parts, tasks, strict=True)
    ]
    return reduce(operator.or_, found)


def _rows_over_sizes(parts: list[Any], tasks: list[Tasks]) -> list[Normal]:
    """Read once more, one row of the Gramian at a time, in little memory."""
    sizes = [power_of_two(part.largest()) for part in parts]
    together: dict[Tasks, list[int]] = defaultdict(list)
    for i, among in enumerate(tasks):
        together[among].append(i)
    found: dict[int, jax.Array] = {}
    for among, leaves in together.items():

        def rows(task: jax.Array, leaves: list[int] = leaves) -> list[jax.Array]:
            return [parts[i].normal_row(task, sizes[i]) for i in leaves]

        gramians = lax.map(rows, jnp.arange(len(among)))
        found |= {
            i: (gramian + gramian.T) / 2
            for i, gramian in zip(leaves, gramians, strict=True)
        }
    return [(found[i], sizes[i]) for i in range(len(parts))]


def power_of_two(largest: jax.Array) -> jax.Array:
    """By what to divide to bring the largest number near to 1; 1 for 0."""
    info = jnp.finfo(largest.dtype)
    largest = lax.stop_gradient(largest)  # whatever the size, the Gramian is the same
    size = lax.reduce_precision(largest, exponent_bits=info.nexp, mantissa_bits=0)
    # The largest would be rounded up to what is no number, or has no normal inverse.
    size = jnp.minimum(size, 2.0 ** (info.maxexp - 2))
    return jnp.where(jnp.isfinite(largest) & (size > 0), size, 1)


def as_seen(gramian: jax.Array, unit: jax.Array) -> jax.Array:
    """The Gramian as numbers hold it: squares too large stay at the largest."""
    return gramian * (jnp.minimum(unit, 1) ** 2)[..., None, None]
