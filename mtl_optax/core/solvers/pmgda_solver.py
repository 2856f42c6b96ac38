"""PMGDA's correction: the best least gain of a step that lowers one more function."""

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.linear_program import linear_program


def correction(gramian: jax.Array, slope: jax.Array, sigma: jax.Array) -> jax.Array:
    """Weights of the step of the best least gain among those that lower h enough.

    A linear program in the shares of the T + 1 unit gradients, that of h the last, and
    the gain, in units of the shortest gradient.
    """
    lift = jnp.concatenate([jnp.eye(len(slope), dtype=slope.dtype), slope[None, :]])
    every = linalg.dot(lift, linalg.dot(gramian, lift.T))
    cosines, norms = linalg.cosine_matrix(every)
    num_tasks = slope.shape[0]
    moving = norms > 0  # those of missing tasks are zero
    shortest = jnp.min(jnp.where(moving, norms, jnp.inf)[:-1])
    shares = jnp.where(moving, shortest / jnp.where(moving, norms, 1), 0)[:-1]
    gains = jnp.concatenate([cosines[:-1], -shares[:, None]], axis=1)
    none = jnp.zeros(num_tasks + 1, slope.dtype)
    on_simplex = jnp.append(jnp.ones_like(none), 0)
    each = jnp.eye(num_tasks + 1, num_tasks + 2, dtype=slope.dtype)
    falls = jnp.append(cosines[-1], 0)

    first = lax.argmax(moving[:-1], 0, jnp.int32)
    at_zero = jnp.arange(1, num_tasks + 2, dtype=jnp.int32)
    at_zero = jnp.where(at_zero == first + 1, 0, at_zero)
    point, feasible = linear_program(
        jnp.concatenate([on_simplex[None], each, gains, falls[None]]),
        jnp.concatenate(
            [jnp.ones(1), none, jnp.where(moving[:-1], 0, -1), sigma[None]]
        ),
        jnp.append(none, 1),
        jnp.append(at_zero, num_tasks + 2 + first),
        jnp.concatenate([jnp.ones(1, bool), ~moving, jnp.zeros(num_tasks + 1, bool)]),
    )
    # The steepest descent of h would do, if rounding hid every better one.
    parts = jnp.where(feasible, jnp.maximum(point[:-1], 0), none.at[-1].set(1))
    lengths = parts / jnp.where(moving, norms, 1)
    return lengths[:-1] + lengths[-1] * slope
