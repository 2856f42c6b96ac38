"""k-means of T numbers, exactly: the best cut of the sorted numbers into groups."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


@partial(jax.jit, static_argnames="num_groups")
def cluster_means(
    values: jax.Array, active: jax.Array, num_groups: int
) -> tuple[jax.Array, jax.Array]:
    """The mean of each number's group `[T]`, and the index of its group `[T]` int32.

    Groups are runs of the sorted numbers, in rising order, with the least sum of
    squared distances to their means; of equally good ones those whose last groups are
    largest. There are `num_groups` of them, or as many as active numbers; the inactive
    are in none: mean 0, index -1. Numbers must be such that their squares are numbers.
    """
    # Sorted by value alone, so that which task has which number does not matter.
    order = jnp.argsort(jnp.where(active, values, jnp.inf), stable=True)
    present = active[order]
    means, costs = _runs(jnp.where(present, values[order], 0))
    count = jnp.sum(active)
    starts = _starts(costs, num_groups)
    place = jnp.arange(values.shape[0])
    kept = jnp.minimum(num_groups, count)

    def one(carry: tuple[jax.Array, ...], group: jax.Array) -> tuple[tuple, None]:
        found, index, last = carry
        first = starts[group, jnp.maximum(last, 0)]
        mine = (place >= first) & (place <= last) & (group < kept)
        found = jnp.where(mine, means[first, jnp.maximum(last, 0)], found)
        index = jnp.where(mine, group, index)
        return (found, index, jnp.where(group < kept, first - 1, last)), None

    nothing = jnp.zeros_like(values), jnp.full(values.shape, -1, jnp.int32)
    groups = jnp.arange(num_groups - 1, -1, -1, dtype=jnp.int32)
    (found, index, _), _ = lax.scan(one, (*nothing, count - 1), groups)
    return jnp.zeros_like(found).at[order].set(found), index.at[order].set(index)


def _runs(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean, and sum of squared distances to it, of the numbers from i to j `[T, T]`.

    One number at a time, as sums of squares would lose the differences; where i > j the
    cost is infinite.
    """
    place = jnp.arange(values.shape[0])

    def add(before: tuple[jax.Array, jax.Array], j: jax.Array) -> tuple[tuple, tuple]:
        mean, cost = before
        size = jnp.maximum(j - place + 1, 1).astype(values.dtype)
        away = values[j] - mean
        mean = jnp.where(place <= j, mean + away / size, 0)
        cost = jnp.where(place <= j, cost + away * (values[j] - mean), 0)
        return (mean, cost), (mean, jnp.where(place <= j, cost, jnp.inf))

    start = jnp.zeros_like(values), jnp.zeros_like(values)
    _, (means, costs) = lax.scan(add, start, place)
    return means.T, costs.T


def _starts(costs: jax.Array, num_groups: int) -> jax.Array:
    """Where the last of k + 1 groups of the numbers up to j begins `[K, T]` int32."""

    def one_more(least: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        total = least[:-1, None] + costs
        start = jnp.argmin(total, axis=0).astype(jnp.int32)
        return none.at[1:].set(jnp.min(total, axis=0)).at[0].set(jnp.inf), start

    none = jnp.full(costs.shape[0] + 1, jnp.inf, costs.dtype).at[0].set(0)
    return lax.scan(one_more, none, None, length=num_groups)[1]
