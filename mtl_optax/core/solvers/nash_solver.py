"""Nash and alpha-fair bargaining: Newton's method on a strictly convex function."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from mtl_optax.core.solvers.linalg import cosine_matrix, dot, noise_floor
from mtl_optax.core.solvers.min_norm import in_hull

Array = jax.Array

_MAX_NEWTON = 50


@jax.jit
def nash_weights(gramian: Array, alpha: ArrayLike = 1.0) -> Array:
    """The positive solution of `G a = a^(-1/alpha)`, by damped Newton steps.

    It exists if and only if 0 is not `in_hull` of the nonzero rows; otherwise the
    result is finite but means nothing. Rows of zero norm get weight 0.
    """
    cosines, norms = cosine_matrix(gramian)
    beta = 1 / jnp.asarray(alpha, gramian.dtype)
    log_norms = jnp.log(jnp.where(norms > 0, norms, 1))
    # Orthogonal rows have a = n^(-2/(1+beta)); the unknown is the log of a over that.
    excess = _newton(cosines, log_norms - jnp.mean(log_norms), beta)
    return jnp.where(norms > 0, jnp.exp(excess - 2 / (1 + beta) * log_norms), 0)


@jax.jit
def bargain(gramian: Array, active: Array, alpha: ArrayLike = 1.0) -> Array:
    """`nash_weights`, or all 0 where 0 is `in_hull` and none exist."""
    return jnp.where(in_hull(gramian, active), 0, nash_weights(gramian, alpha))


def _newton(cosines: Array, log_norms: Array, beta: Array) -> Array:
    """Log of the solution over that of orthogonal rows.

    Minimises the strictly convex `1/2 b'Cb - sum_i c_i b_i^(1-beta) / (1-beta)`, where
    `b = norms * a` and `c = norms^(beta-1)`. Logarithms hold b, for it can span more
    decades than a float has.
    """
    num_tasks, dtype = log_norms.shape[0], log_norms.dtype
    floor = noise_floor(num_tasks, dtype)
    log_scale = (beta - 1) / (beta + 1) * log_norms  # b of orthogonal rows

    def unsolved(state: tuple[Array, Array, Array, Array]) -> Array:
        step, _, _, done = state
        return ~done & (step < _MAX_NEWTON)

    def advance(
        state: tuple[Array, Array, Array, Array],
    ) -> tuple[Array, Array, Array, Array]:
        step, excess, last, _ = state
        # Symmetric scaling: the Hessian becomes K + beta I with K = k C k.
        k = jnp.exp((1 + beta) / 2 * excess)
        root = jnp.exp(log_scale + (1 - beta) / 2 * excess)
        scaled = k[:, None] * cosines * k[None, :]
        # The shift keeps the factor real; being in the Hessian alone, it does not
        # move the solution.
        hessian = scaled + jnp.diag(beta + floor * k**2)
        factor = lax.linalg.cholesky(hessian)
        slope = dot(scaled, root) - root
        move = -cho_solve((factor, True), slope) / root  # relative to b
        # Along the move, the curvature is at most (1 - t down)^(-beta-1) times that
        # at t = 0, which makes this step a descent step.
        down = jnp.maximum(-jnp.min(move), jnp.finfo(dtype).eps)
        most = 1 - 4 * jnp.finfo(dtype).eps
        length = -jnp.expm1(-jnp.log1p(beta * down) / beta)
        length = jnp.minimum(length, most) / down
        new = excess + jnp.log1p(length * move)
        size = jnp.max(jnp.abs(move))
        stalled = (size < 0.01) & (size > last / 2)
        # Where there is no solution the iterates run away: keep them finite.
        good = jnp.all(jnp.isfinite(new) & (new < -2 * jnp.log(floor)))
        done = ~good | (size <= floor) | stalled
        return step + jnp.int32(1), jnp.where(good, new, excess), size, done

    weight = jnp.exp(log_scale)
    square = jnp.sum(weight**2)
    start = jnp.maximum(dot(weight, dot(cosines, weight)), floor * square)
    start = jnp.log(square / start) / (1 + beta) * jnp.ones_like(log_norms)
    zero = jnp.int32(0), start, jnp.asarray(jnp.inf, dtype), jnp.asarray(False)
    return lax.while_loop(unsolved, advance, zero)[1]
