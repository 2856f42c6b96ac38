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
    suspect = jax.vmap(cancels)(weights, gramian)

    def without_noise(leaves: list[jax.Array]) -> list[jax.Array]:
        noise = suspect
        if measured:
            apart = jnp.sum(weights**2 * _diagonals(gramian), axis=1)
            floor = noise_floor(weights.shape[1], weights.dtype)
            squares = [jnp.sum(jnp.square(x.astype(apart.dtype))) for x in leaves]
            noise &= sum_by_block(squares, blocks) <= floor**2 * apart
        pairs = zip(blocks, leaves, strict=True)
        return [jnp.where(noise[block], 0, leaf) for block, leaf in pairs]

    # Nearly every step passes the update on as it is.
    kept = lax.cond(jnp.any(suspect), without_noise, lambda leaves: leaves, leaves)
    return jax.tree.unflatten(treedef, kept)


def _diagonals(gramian: jax.Array) -> jax.Array:
    return jnp.diagonal(gramian, axis1=1, axis2=2)
