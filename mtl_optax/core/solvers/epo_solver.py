"""EPO's linear program: the step most like an aim, with little or no ascent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.solvers.linalg import cosine_matrix, dot, noise_floor
from mtl_optax.core.solvers.linear_program import linear_program


class Balance(NamedTuple):
    """How far losses are from their preference, and what leads there."""

    unevenness: jax.Array  # mu, the KL divergence of the relative losses from uniform
    adjustments: jax.Array  # [T] a, how much of each gradient leads to the ray
    worst: jax.Array  # [T] bool, the largest r_t L_t


def _rows(
    gains: jax.Array, state: Balance, balancing: jax.Array, active: jax.Array
) -> jax.Array:
    """The least gain of each task that the program asks for, `[T]`."""
    free = jnp.full_like(gains, -2 * gains.shape[0])  # no bound
    helped = active & (gains > 0)
    bounds = jnp.where(helped, free, gains)
    bounds = jnp.where(state.worst | ~jnp.any(helped) | ~balancing, 0, bounds)
    return jnp.where(active, bounds, free)


def steepest(
    gramian: jax.Array,
    state: Balance,
    balancing: jax.Array,
    active: jax.Array,
    relax: bool,
) -> tuple[jax.Array, jax.Array]:
    """Weights of the linear program, and whether it has any.

    In the lengths of the unit gradients that the weights stand for, in units of the
    longest, so that unlike gradients do not spoil one another's accuracy.
    """
    cosines, norms = cosine_matrix(gramian)
    count = norms.shape[0]
    longest = jnp.max(norms)
    norms = norms / jnp.where(longest > 0, longest, 1)
    shortest = jnp.min(jnp.where(norms > 0, norms, 1))
    share = shortest / jnp.where(norms > 0, norms, shortest)

    leading = norms * state.adjustments
    gains = dot(cosines, leading)  # of the step J'a, divided by norms
    noise = noise_floor(count, norms.dtype) * dot(jnp.abs(cosines), jnp.abs(leading))
    gains = jnp.where(jnp.abs(gains) <= noise, 0, gains)
    objective = jnp.where(balancing, gains, dot(cosines, norms))
    most = jnp.max(jnp.where(active, norms * gains, -jnp.inf))
    on_ray = jnp.where(balancing | relax, -2 * count, jnp.minimum(most, 0))
    asked = _rows(gains, state, balancing, active)

    first = lax.argmax(jnp.where(active, objective / share, -jnp.inf), 0, jnp.int32)
    others = jnp.arange(1, count + 1, dtype=jnp.int32)
    point, feasible = linear_program(
        jnp.concatenate([share[None, :], jnp.eye(count), cosines, gains[None, :]]),
        jnp.concatenate([shortest[None], jnp.zeros(count), asked, on_ray[None]]),
        objective,
        jnp.where(others == first + 1, 0, others),
        jnp.concatenate([jnp.ones(1, bool), ~active, jnp.zeros(count + 1, bool)]),
    )
    weights = jnp.where(active, jnp.maximum(point, 0) * share, 0)
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1), feasible & (total > 0)
