"""The shortest vector in the convex hull of gradients, and whether it is 0."""

import jax
import jax.numpy as jnp

from mtl_optax.core.solvers.linalg import among, cosine_matrix, dot, noise_floor
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp

Array = jax.Array


@jax.jit
def min_norm_weights(gramian: Array, active: Array) -> Array:
    """Simplex weights of the shortest vector in the hull of the active rows (MGDA).

    Exactly 0 for inactive rows. Active rows that are zero share the weight equally;
    without an active row all weights are 0.
    """
    cosines, norms = cosine_matrix(gramian)
    weights = _min_norm(cosines, norms, active & (norms > 0))
    zero_rows = active & (norms == 0)
    share = zero_rows.astype(weights.dtype)
    share /= jnp.maximum(jnp.sum(share), 1)
    return jnp.where(jnp.any(zero_rows), share, weights)


@jax.jit
def in_hull(gramian: Array, active: Array) -> Array:
    """Whether 0 is in the convex hull of the active nonzero rows, within rounding.

    This is Pareto stationarity. True where there is no such row.
    """
    cosines, norms = cosine_matrix(gramian)
    return stationary_weights(cosines, active & (norms > 0))[0]


def _min_norm(cosines: Array, norms: Array, rows: Array) -> Array:
    """Min-norm weights over `rows`, none of which is zero.

    With `h ~ 1/norms` of length 1, the minimiser of `y'Cy + (h'y - 1)^2` over `y >= 0`
    is a multiple of `norms * weights`: along each ray the optimum is an increasing
    function of the squared norm. Unit length makes both terms of equal size where the
    rows are orthogonal, so neither is lost to rounding.
    """
    shortest = jnp.min(jnp.where(rows, norms, jnp.inf))
    inverse = jnp.where(rows, shortest / jnp.where(rows, norms, 1), 0)
    inverse /= jnp.maximum(jnp.sqrt(jnp.sum(inverse**2)), 0.5)
    matrix = among(cosines, rows) + inverse[:, None] * inverse[None, :]
    weights = inverse * nonnegative_qp(matrix, -inverse)
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def stationary_weights(cosines: Array, rows: Array) -> tuple[Array, Array]:
    """Whether 0 is in the hull of unit rows, and their min-norm weights."""
    weights = _min_norm(cosines, jnp.ones_like(cosines[0]), rows)
    square = dot(weights, dot(cosines, weights))
    floor = noise_floor(weights.shape[0], weights.dtype)
    return square <= floor * jnp.sum(weights**2), weights
