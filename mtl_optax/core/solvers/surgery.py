"""Gradient surgery, what PCGrad and GradVac share: each task visits all others.

A gradient in the course of its visits is a row of coefficients of unit gradients.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def visiting_order(key: Array, num_tasks: int, order: str = "random") -> Array:
    """For each task the others `[T, T-1]`, by index ("fixed") or shuffled."""
    task = jnp.arange(num_tasks, dtype=jnp.int32)[:, None]
    steps = jnp.arange(1, num_tasks, dtype=jnp.int32)[None, :]
    others = jnp.sort((task + steps) % num_tasks, axis=1)
    if order == "fixed":
        return others
    return jax.vmap(jax.random.permutation)(jax.random.split(key, num_tasks), others)


def sum_of_rows(coefficients: Array, norms: Array) -> Array:
    """Weights of the sum of all rows; row i started as `norms[i]` times u_i."""
    total = jnp.sum(norms[:, None] * coefficients, axis=0)
    # No other task was changed by a zero gradient, so it keeps its own weight.
    return jnp.where(norms > 0, total / jnp.where(norms > 0, norms, 1), 1)
