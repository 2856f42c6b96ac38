"""The least change of a vector that gives others the inner products they lack."""

import jax
import jax.numpy as jnp

from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp


@jax.jit
def least_change(
    cosines: jax.Array, rows: jax.Array, missing: jax.Array, scale: jax.Array
) -> jax.Array:
    """Multipliers of the shortest x with `<u_j, x> >= missing_j`; 0 if there is no x.

    The unit vectors u are those of `rows`. With `h ~ missing`, y the minimiser of
    `y'Cy + (h'y - 1)^2` over `y >= 0`, and the minimum `1 - h'y`, x is proportional to
    `sum_j y_j u_j / (1 - h'y)`. If and only if there is no x, the minimum is 0 and the
    vectors cancel (Lawson and Hanson's least distance programming).
    """
    floor = linalg.noise_floor(missing.shape[0], missing.dtype)
    missing = jnp.where(rows, missing, 0)
    size = jnp.sqrt(jnp.sum(jnp.maximum(missing, 0) ** 2))
    size = jnp.maximum(size, floor * scale)
    h = missing / jnp.where(size > 0, size, 1)
    matrix = linalg.among(cosines, rows) + h[:, None] * h[None, :]
    y = nonnegative_qp(matrix, -h)
    minimum = 1 - jnp.sum(h * y)
    solvable = (minimum > floor) & ~linalg.cancels(y, cosines)
    return jnp.where(solvable, size * y / jnp.where(solvable, minimum, 1), 0)
