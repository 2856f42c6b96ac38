"""Groups of tasks that do not conflict, by a greedy colouring of their graph."""

import jax
import jax.numpy as jnp
from jax import lax


def welsh_powell(conflict: jax.Array) -> jax.Array:
    """Colours `[T]` int32 of a graph `[T, T]` bool, symmetric, diagonal ignored.

    Nodes by falling number of neighbours, of equal ones the first, each take the first
    colour that no neighbour has. At most one colour more than the most neighbours.
    """
    num_tasks = conflict.shape[0]
    neighbours = conflict & ~jnp.eye(num_tasks, dtype=bool)
    order = jnp.argsort(-jnp.sum(neighbours, axis=1), stable=True)
    colours = jnp.arange(num_tasks)

    def one(i: jax.Array, found: jax.Array) -> jax.Array:
        node = order[i]
        taken = neighbours[node][:, None] & (found[:, None] == colours[None, :])
        free = jnp.argmin(jnp.any(taken, axis=0))
        return found.at[node].set(free.astype(jnp.int32))

    none = jnp.full(num_tasks, -1, jnp.int32)
    return lax.fori_loop(0, num_tasks, one, none)
