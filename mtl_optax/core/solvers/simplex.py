"""The projection on the probability simplex of the tasks that are present."""

import jax
import jax.numpy as jnp
import optax


@jax.jit
def project_simplex(point: jax.Array, active: jax.Array) -> jax.Array:
    """The weights `[T]` nearest to `point` `[T]` among those of the active tasks.

    They are not negative and sum to 1 within rounding; those of inactive tasks are
    exactly 0, whatever `point` holds there (NaN too). Without an active task all are 0.
    Only differences between the active entries of `point` matter, so that it may be as
    large as floating point allows.
    """
    largest = jnp.max(point, initial=-jnp.inf, where=active)
    # No entry that is 1 or more below the largest has a weight. Left where it is, a far
    # one would cost the others their digits: optax sums before it projects.
    near = jnp.where(active, jnp.maximum(point - largest, -2), -2)
    weights = jnp.where(active, optax.projections.projection_simplex(near), 0)
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)
