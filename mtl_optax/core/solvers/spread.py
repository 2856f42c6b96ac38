"""How far T numbers are from one another, and which way each would have to move."""

import jax
import jax.numpy as jnp

from mtl_optax.core.solvers.linalg import noise_floor


def similarity(norms: jax.Array) -> jax.Array:
    """2ab / (a^2 + b^2) of all pairs of norms `[T, T]`; 1 of two zeros."""
    one, other = norms[:, None], norms[None, :]
    larger = jnp.maximum(one, other)
    # By the ratio: squares of small norms would underflow.
    ratio = jnp.where(
        larger > 0, jnp.minimum(one, other) / jnp.where(larger > 0, larger, 1), 1
    )
    return 2 * ratio / (1 + ratio**2)


def from_mean(values: jax.Array, active: jax.Array) -> jax.Array:
    """Slopes of `sum_t |u_t - mean(u)|` over the active numbers, 0 for the others.

    Here and below a sign is 0 where both sides agree within rounding.
    """
    count = jnp.maximum(jnp.sum(active), 1)
    values = jnp.where(active, values, 0)
    signs = jnp.where(active, _signs(values - jnp.sum(values) / count, values), 0)
    return jnp.where(active, signs - jnp.sum(signs) / count, 0)


def from_next(values: jax.Array, active: jax.Array) -> jax.Array:
    """The same of `sum_t |u_t - u_{t+1}|`, over the active numbers in their order."""
    order = jnp.argsort(~active, stable=True)
    values = jnp.where(active, values, 0)
    row = values[order]
    pairs = jnp.arange(values.shape[0] - 1) < jnp.sum(active) - 1
    signs = jnp.where(pairs, _signs(row[:-1] - row[1:], row), 0)
    slopes = jnp.pad(signs, (0, 1)) - jnp.pad(signs, (1, 0))
    return jnp.zeros_like(slopes).at[order].set(slopes)


def _signs(gaps: jax.Array, of: jax.Array) -> jax.Array:
    noise = noise_floor(of.shape[0], of.dtype) * jnp.max(jnp.abs(of))
    return jnp.where(jnp.abs(gaps) <= noise, 0, jnp.sign(gaps))
