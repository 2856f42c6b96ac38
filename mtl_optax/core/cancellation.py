"""Updates in which the weights cancel the gradients up to rounding."""

import operator
from functools import reduce

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.solvers.linalg import cancels, noise_floor


def zero_if_cancelling(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """Weights `[..., T]`, or zeros where they cancel the Gramian's rows to rounding.

    A Gramian tells a squared norm to within its own rounding only: this is the test
    where the numbers that are summed are not those that it is of, and block by block.
    """
    test = jnp.vectorize(cancels, signature="(t),(t,t)->()")
    return jnp.where(test(weights, gramian)[..., None], 0, weights)


def zero_if_noise(
    update: optax.Updates, weights: jax.Array, gramian: jax.Array, unit: jax.Array
) -> optax.Updates:
    """The weighted sum of the gradients that the Gramian is of; zeros if it is noise.

    The Gramian is in the unit that `measure` gave. Where it cannot tell, and only
    there, the norm of the update decides.
    """
    suspect = cancels(weights, gramian)

    def without_noise(update: optax.Updates) -> optax.Updates:
        floor = noise_floor(weights.shape[0], weights.dtype)
        largest = jnp.max(jnp.abs(weights))  # whose square may be no number
        largest = jnp.where(largest > 0, largest, 1)
        apart = jnp.sum((weights / largest) ** 2 * jnp.diag(gramian))
        noise = _squared_norm(update, unit * largest) <= floor**2 * apart
        return jax.tree.map(lambda x: jnp.where(noise, 0, x), update)

    # Nearly every step hands the update on as it is.
    return lax.cond(suspect, without_noise, lambda update: update, update)


def _squared_norm(tree: optax.Updates, unit: jax.Array) -> jax.Array:
    """Sum of squares over all leaves, in the precision of T-sized numbers."""
    wide = [leaf.astype(unit.dtype) / unit for leaf in jax.tree.leaves(tree)]
    return reduce(operator.add, [jnp.sum(leaf * leaf) for leaf in wide])
