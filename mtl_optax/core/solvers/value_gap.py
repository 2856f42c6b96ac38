"""FORUM's weights: of objectives that must not lose sight of a constraint.

Unit gradients `u_t`, one more vector q, and `pi_t = phi - <u_t, q> / |q|^2`:

    min |sum_t w_t u_t + nu q|^2 - nu phi |q|^2
    over w in the simplex, nu >= 0, nu >= sum_t w_t pi_t.

With a multiplier mu of the last constraint, w is the min-norm point of the vectors
`u_t + kappa q`, `kappa = nu - mu / (2 |q|^2)`. For nu > 0 mu is `phi |q|^2`, whatever w
is; for nu = 0 it lies between 0 and that. So all candidates lie on one path: kappa
from 0 down to `-phi / 2` while nu is 0, then up again with nu. Along it the excess of
`sum_t w_t pi_t` over nu never rises, and where it is 0 is the solution.
"""

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.min_norm import min_norm_weights

_HALVINGS = 16  # of the path; what is left is linear in it, but for a corner


@jax.jit
def value_gap_weights(
    cosines: jax.Array,
    along: jax.Array,
    square: jax.Array,
    phi: jax.Array,
    active: jax.Array,
) -> jax.Array:
    """The weights w `[T]` of the active tasks; 0 at the others.

    Args:
      cosines: `[T, T]` inner products of the unit gradients.
      along: `[T]`, their inner products with q.
      square: `|q|^2`, positive.
      phi: at least 0.
      active: `[T]` bool.
    """
    excess_of = phi - along / square

    def at(place: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weights at a place of the path, and the excess there."""
        nu = jnp.maximum(place - phi / 2, 0)
        kappa = nu - jnp.minimum(place, phi / 2)
        shift = kappa * along
        turned = cosines + shift[:, None] + shift[None, :] + kappa**2 * square
        weights = min_norm_weights(turned, active)
        return weights, linalg.dot(weights, excess_of) - nu

    def halve(_: jax.Array, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        low, high = ends
        middle = (low + high) / 2
        above = at(middle)[1] > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    def search() -> jax.Array:
        end = phi / 2 + jnp.max(excess_of, initial=0, where=active)
        bounds = jnp.int32(0), jnp.int32(_HALVINGS)
        low, high = lax.fori_loop(*bounds, halve, (jnp.zeros_like(end), end))
        (left, above), (right, below) = at(low), at(high)
        gap = above - below
        part = jnp.where(gap > 0, above / jnp.where(gap > 0, gap, 1), 0)
        return left + jnp.clip(part, 0, 1) * (right - left)

    first, excess = at(jnp.zeros_like(square))
    return lax.cond(excess > 0, search, lambda: first)
