"""Updates in which the weights cancel the gradients up to rounding."""

import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.combine import combine
from mtl_optax.core.solvers.linalg import cancels, noise_floor


@jax.jit
def zero_if_noise(
    weights: jax.Array,
    gramian: jax.Array,
    gradients: Any = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """The weights, or zeros where the update that they give is rounding noise.

    The Gramian tells a squared norm to within its own rounding only. Where that is not
    enough, and only there, the norm of the update itself decides.
    """
    noise = cancels(weights, gramian)
    if gradients is not None:

        def norm_is_noise() -> jax.Array:
            update = combine(gradients, weights, mask)
            floor = noise_floor(weights.shape[0], weights.dtype)
            apart = jnp.sum(weights**2 * jnp.diag(gramian))
            return _squared_norm(update) <= floor**2 * apart

        noise = lax.cond(noise, norm_is_noise, lambda: jnp.asarray(False))
    return jnp.where(noise, 0, weights)


def _squared_norm(tree: optax.Updates) -> jax.Array:
    """Sum of squares over all leaves, in the precision of T-sized numbers."""
    wide = [leaf.astype(jnp.result_type(float)) for leaf in jax.tree.leaves(tree)]
    return reduce(operator.add, [jnp.sum(leaf * leaf) for leaf in wide])
