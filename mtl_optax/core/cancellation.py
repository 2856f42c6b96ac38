"""Updates in which the weights cancel the gradients up to rounding."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.solvers.linalg import cancels, noise_floor
from mtl_optax.core.trees.leaves import sum_by_block


def zero_if_noise(
    update: optax.Updates,
    weights: jax.Array,
    gramian: jax.Array,
    blocks: Sequence[int] | None = None,
    *,
    measured: bool = True,
) -> optax.Updates:
    """The update, or zeros where it is rounding noise; block by block.

    The Gramian tells a squared norm to within its own rounding only. Where that is not
    enough, and only there, the norm of the update itself decides, if the Gramian is
    that of the numbers that were summed (`measured`).

    Args:
      update: the weighted sum, `[*param]` leaves.
      weights: `[T]`, or `[B, T]` with `blocks`.
      gramian: `[T, T]`, or `[B, T, T]`.
      blocks: which block each leaf belongs to; None is one block.
      measured: see above.
    """
    leaves, treedef = jax.tree.flatten(update)
    if blocks is None:
        blocks = (0,) * len(leaves)
        weights, gramian = weights[None], gramian[None]
    noise = jax.vmap(cancels)(weights, gramian)
    if measured:
        diagonal = jnp.diagonal(gramian, axis1=1, axis2=2)
        apart = jnp.sum(weights**2 * diagonal, axis=1)
        floor = noise_floor(weights.shape[1], weights.dtype)

        def norm_is_noise() -> jax.Array:
            squares = [jnp.sum(jnp.square(x.astype(apart.dtype))) for x in leaves]
            return noise & (sum_by_block(squares, blocks) <= floor**2 * apart)

        noise = lax.cond(jnp.any(noise), norm_is_noise, lambda: noise)
    kept = [jnp.where(noise[b], 0, x) for b, x in zip(blocks, leaves, strict=True)]
    return jax.tree.unflatten(treedef, kept)
