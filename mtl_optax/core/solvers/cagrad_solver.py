"""CAGrad's inner problem: a root in one number over nearest-point problems."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtl_optax.core.solvers.linalg import among, cosine_matrix, dot, solve_among
from mtl_optax.core.solvers.min_norm import stationary_weights
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp_from

Array = jax.Array

_MAX_LEVELS = 30


@jax.jit
def cagrad_weights(
    gramian: Array, preference: Array, c: ArrayLike, active: Array
) -> Array:
    """Weights of CAGrad's direction, without rescaling.

    With `g0 = sum_t preference_t g_t`, the direction `d` maximises `min_t <g_t, d>`
    over the active nonzero rows within `|d - g0| <= c |g0|`. Where 0 is `in_hull`, it
    is the nearest `d` to g0 that conflicts with no row, if the ball has one.
    """
    return jnp.where(active, preference, 0) + cagrad_lift(
        gramian, preference, c, active
    )


@jax.jit
def cagrad_lift(
    gramian: Array, preference: Array, c: ArrayLike, active: Array
) -> Array:
    """What the weights of CAGrad's direction have beyond the preference."""
    cosines, norms = cosine_matrix(gramian)
    rows = active & (norms > 0)
    preference = jnp.where(active, preference, 0)
    unit = norms / jnp.maximum(jnp.max(norms), jnp.finfo(norms.dtype).tiny)
    lift = _ascend_level(cosines, unit, unit * preference, c, rows)
    return jnp.where(rows, lift / jnp.where(rows, unit, 1), 0)


class _Level(NamedTuple):
    step: Array
    level: Array
    low: Array
    high: Array
    lift: Array
    free: Array
    distance: Array
    done: Array


def _ascend_level(
    cosines: Array, norms: Array, centre: Array, c: ArrayLike, rows: Array
) -> Array:
    """`norms * lambda`, with the direction `g0 + sum_t lambda_t g_t`.

    The nearest point to g0 with `<g_t, d> >= level` for all t is a `nonnegative_qp`
    whose distance to g0 is a convex, increasing function of the level. Find the level
    at which it equals the radius: on a fixed free set the squared distance is a
    quadratic, solved exactly. The unit of the level is the shortest row's norm.
    """
    eps = jnp.finfo(norms.dtype).eps
    shortest = jnp.min(jnp.where(rows, norms, jnp.inf))
    unit = jnp.where(rows, shortest / jnp.where(rows, norms, 1), 0)
    slope = jnp.where(rows, dot(cosines, centre), 0)
    length = jnp.sqrt(jnp.maximum(dot(centre, dot(cosines, centre)), 0))
    radius = jnp.asarray(c, norms.dtype) * length
    cosines = among(cosines, rows)

    def unsolved(state: _Level) -> Array:
        return ~state.done & (state.step < _MAX_LEVELS)

    def advance(state: _Level) -> _Level:
        level = state.level
        linear = slope - level * unit
        lift, free = nonnegative_qp_from(cosines, linear, state.free)
        distance = jnp.sqrt(jnp.maximum(dot(lift, dot(cosines, lift)), 0))
        above = distance > radius
        low = jnp.where(above, state.low, level)
        high = jnp.where(above, level, state.high)
        gain = _level_gain(cosines, unit, lift, free, distance, radius)
        new = level + gain
        new = jnp.where((new > low) & (new < high), new, (low + high) / 2)
        close = jnp.abs(distance - radius) <= 4 * eps * radius
        # Beside a stationary point the lift is long and its terms cancel: there the
        # distance is known to the rounding of its largest terms, and stops improving.
        terms = dot(jnp.abs(lift), dot(jnp.abs(cosines), jnp.abs(lift)))
        excess = jnp.abs(distance - radius) * (distance + radius)
        before = jnp.abs(state.distance - radius)
        stalled = jnp.abs(distance - radius) > before / 2
        close = close | (stalled & (excess <= 4 * eps * terms))
        same = jnp.abs(new - level) <= eps * jnp.abs(level)
        # A stationary problem starts at its optimum, level 0, if the ball has it.
        done = close | same | (stationary & ~above & (state.step == 0))
        return _Level(
            state.step + jnp.int32(1), new, low, high, lift, free, distance, done
        )

    stationary, weights = stationary_weights(cosines, rows)
    low, high = _level_bounds(cosines, unit, slope, radius, rows, weights)
    level = jnp.where(stationary, jnp.minimum(high, 0), high)
    start = _Level(
        step=jnp.int32(0),
        level=level,
        low=low,
        high=level + (level - low) / 8,  # the bound itself has rounding errors
        lift=jnp.zeros_like(norms),
        free=jnp.zeros_like(rows),
        distance=jnp.zeros_like(radius),
        done=~jnp.any(rows) | (radius <= 0),
    )
    end = lax.while_loop(unsolved, advance, start)
    # Exactly on the sphere, unless a stationary problem stopped inside the ball.
    factor = radius / jnp.where(end.distance > 0, end.distance, 1)
    return end.lift * jnp.where(stationary, jnp.minimum(factor, 1), factor)


def _level_bounds(
    cosines: Array,
    unit: Array,
    slope: Array,
    radius: Array,
    rows: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """The level of g0, and what no direction in the ball exceeds.

    Any simplex weights w give a bound, `<g_w, g0> + radius |g_w|`.
    """
    divisor = jnp.where(rows, unit, 1)
    low = jnp.min(jnp.where(rows, slope / divisor, jnp.inf))
    single = jnp.min(jnp.where(rows, (slope + radius) / divisor, jnp.inf))
    square = jnp.maximum(dot(weights, dot(cosines, weights)), 0)
    mixed = dot(weights, slope) + radius * jnp.sqrt(square)
    total = dot(weights, unit)
    return low, jnp.minimum(single, mixed / jnp.where(total > 0, total, 1))


def _level_gain(
    cosines: Array,
    unit: Array,
    lift: Array,
    free: Array,
    distance: Array,
    radius: Array,
) -> Array:
    """The change of level that brings the distance to the radius."""
    first = dot(unit, lift)
    second = dot(unit, solve_among(cosines, unit, free))
    excess = (radius - distance) * (radius + distance)
    root = first**2 + second * excess
    bottom = first + jnp.sqrt(jnp.maximum(root, 0))
    exact = excess / jnp.where(bottom > 0, bottom, 1)
    # No root on this piece: a Newton step on the distance itself.
    tangent = (radius - distance) * distance / jnp.where(first > 0, first, 1)
    return jnp.where(root >= 0, exact, tangent)
