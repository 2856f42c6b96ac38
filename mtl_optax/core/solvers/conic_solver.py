"""The largest worst gain within an angle of the mean: a root over nearest points."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtl_optax.core.solvers.linalg import (
    among,
    cancels,
    cosine_matrix,
    dot,
    noise_floor,
    solver_among,
)
from mtl_optax.core.solvers.min_norm import stationary_weights
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp_from

Array = jax.Array

_MAX_LEVELS = 40
_LOST = 8  # times the noise floor of a squared length; below it has too few digits


@jax.jit
def conic_weights(
    gramian: Array, preference: Array, cosine: ArrayLike, active: Array
) -> Array:
    """Weights of the step that gains most for the worst task, near the mean gradient.

    With `g0 = sum_t preference_t g_t`, the step `d` maximises `min_t <g_t, d>` over the
    active nonzero rows within `|d| <= |g0|` and `<d, g0> >= cosine |g0|^2`. It is g0
    where the preference cancels the rows.
    """
    cosines, norms = cosine_matrix(gramian)
    preference = jnp.where(active, preference, 0)
    rows = active & (norms > 0) & ~cancels(preference, gramian)
    unit = norms / jnp.maximum(jnp.max(norms), jnp.finfo(norms.dtype).tiny)
    centre = unit * preference
    length = jnp.sqrt(jnp.maximum(dot(centre, dot(cosines, centre)), 0))
    centre /= jnp.where(length > 0, length, 1)
    mean, lift = _step(_seen_from(cosines, unit, centre, rows), cosine, rows)
    lift = jnp.where(rows, length * lift / jnp.where(rows, unit, 1), 0)
    return mean * preference + lift


class _Rows(NamedTuple):
    """Unit rows; the mean gradient has length 1, the unit of gain is the least norm."""

    cosines: Array
    slope: Array  # along the mean gradient
    across: Array  # products of what is across it
    owed: Array  # gain along each for a level of 1


class _Point(NamedTuple):
    """`mean * g0 + sum lift_t g_t`, the nearest to `mean * g0` of its level."""

    mean: Array  # 1, or 0: at a level without end only directions are left
    level: Array
    lift: Array
    free: Array
    along: Array  # the mean gradient
    aside: Array  # length across it
    lost: Array  # nothing but rounding is left of it


class _Search(NamedTuple):
    step: Array
    point: _Point
    level: Array  # to be tried next
    low: Array  # inside the cone
    high: Array  # outside
    miss: Array
    done: Array


def _seen_from(cosines: Array, norms: Array, centre: Array, rows: Array) -> _Rows:
    shortest = jnp.min(jnp.where(rows, norms, jnp.inf))
    slope = jnp.clip(jnp.where(rows, dot(cosines, centre), 0), -1, 1)
    cosines = among(cosines, rows)
    owed = jnp.where(rows, shortest / jnp.where(rows, norms, 1), 0)
    return _Rows(cosines, slope, cosines - slope[:, None] * slope[None, :], owed)


def _nearest(seen: _Rows, mean: Array, level: Array, free: Array) -> _Point:
    lift, free = nonnegative_qp_from(
        seen.cosines, mean * seen.slope - level * seen.owed, free
    )
    along = mean + dot(seen.slope, lift)
    aside = jnp.sqrt(jnp.maximum(dot(lift, dot(seen.across, lift)), 0))
    lost = along**2 + aside**2 <= _noise(mean, lift)
    return _Point(mean, level, lift, free, along, aside, lost)


def _step(seen: _Rows, cosine: ArrayLike, rows: Array) -> tuple[Array, Array]:
    """How much of the unit mean gradient, and of each unit row, is in the step.

    By Lagrange's conditions the step is a multiple of the nearest point to the mean
    gradient with `<g_t, d> >= level` for all t, a `nonnegative_qp` as in CAGrad. With
    the level its angle to the mean gradient grows, from 0 to that of the shortest
    vector of the hull, which is the answer if the cone has it. Else find the level at
    which the point is on the cone: a quadratic on a fixed free set, solved exactly.
    Where 0 is in the hull levels end at 0, with the nearest point without conflict.
    """
    cosine = jnp.clip(jnp.asarray(cosine, seen.slope.dtype), 0, 1)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    eps = jnp.finfo(cosine.dtype).eps
    stationary, _ = stationary_weights(seen.cosines, rows)
    divisor = jnp.where(rows, seen.owed, 1)
    least = jnp.min(jnp.where(rows, seen.slope / divisor, jnp.inf))
    # As near to the mean gradient as the border of the cone
    first = jnp.min(jnp.where(rows, (seen.slope + sine) / divisor, jnp.inf))

    def unsolved(state: _Search) -> Array:
        return ~state.done & (state.step < _MAX_LEVELS)

    def advance(state: _Search) -> _Search:
        inner = stationary | (state.step > 0)
        mean = jnp.where(inner, jnp.ones_like(sine), 0)
        point = _nearest(seen, mean, state.level, state.point.free)
        point = point._replace(lost=point.lost & stationary)
        excess = cosine * point.aside - sine * point.along
        out = (excess > 0) | point.lost
        low = jnp.where(inner & ~out, state.level, state.low)
        high = jnp.where(inner & out, state.level, state.high)
        new, turns = _level_on_piece(seen, point, cosine, sine)
        further = least + jnp.maximum(2 * (low - least), first - least)
        other = jnp.where(jnp.isfinite(high), (low + high) / 2, further)
        within = (new > low) & (new < high) & ~point.lost
        new = jnp.where(within, new, other)

        miss, rounding = _miss(seen, point, cosine, sine)
        # The rounding of its terms is all that can be known, once it stops improving.
        stalled = ~within | (miss > state.miss / 2)
        stalled = stalled & (miss <= 4 * rounding)
        same = jnp.abs(new - state.level) <= eps * jnp.abs(new)
        close = ~point.lost & inner & (same | stalled | (miss <= 4 * eps))
        done = close | (~out & ((state.step == 0) | (stationary & ~turns)))
        step = state.step + jnp.int32(1)
        return _Search(step, point, new, low, high, miss, done)

    zero, nothing = jnp.zeros_like(sine), jnp.zeros_like(seen.slope)
    start = _Search(
        step=jnp.int32(0),
        point=_Point(
            *(zero + 1, zero, nothing, jnp.zeros_like(rows), zero + 1, zero),
            lost=jnp.asarray(False),
        ),
        level=jnp.where(stationary, jnp.maximum(least, 0), 1),
        low=least,
        high=jnp.where(stationary, jnp.maximum(least, 0), jnp.inf),
        miss=zero + jnp.inf,
        done=~jnp.any(rows) | (sine <= 0),
    )
    point = lax.while_loop(unsolved, advance, start).point
    length = jnp.hypot(point.along, point.aside)
    scale = 1 / jnp.where(length > 0, length, 1)
    # A step that harms is no longer than the mean gradient's share asks for.
    shorter = jnp.minimum(
        1, cosine / jnp.where(point.along > 0, point.along * scale, 1)
    )
    scale = jnp.where(point.level < 0, shorter * scale, scale)
    plain = point.lost | ~jnp.any(point.lift > 0)
    return (
        jnp.where(plain, 1, scale * point.mean),
        jnp.where(plain, 0, scale * point.lift),
    )


def _miss(
    seen: _Rows, point: _Point, cosine: Array, sine: Array
) -> tuple[Array, Array]:
    """How far the point is from the cone, squared, over its terms; their rounding."""
    aside, along = cosine * point.aside, sine * jnp.abs(point.along)
    both = aside**2 + along**2
    both = jnp.where(both > 0, both, 1)
    size = jnp.abs(point.lift)
    terms = dot(size, dot(jnp.abs(seen.cosines), size)) + along**2
    owed = jnp.abs(seen.slope) + jnp.abs(point.level) * seen.owed
    terms += aside * jnp.sum(jnp.where(point.free, owed, 0))
    miss = jnp.abs((aside - along) * (aside + along)) / both
    return miss, jnp.finfo(miss.dtype).eps * terms / both


def _level_on_piece(
    seen: _Rows, point: _Point, cosine: Array, sine: Array
) -> tuple[Array, Array]:
    """The level that is on the cone with this free set, and whether levels turn it.

    From the point, or, where that is at a level without end, from level 0.
    """
    solve = solver_among(seen.cosines, point.free)
    rise, still = solve(seen.owed), -solve(seen.slope)
    away = point.mean <= 0
    base = jnp.where(away, still, point.lift)
    level = jnp.where(away, 0, point.level)

    def product(a: Array, b: Array) -> Array:
        turned = dot(a, dot(seen.across, b))
        return cosine**2 * turned

    along, climb = 1 + dot(seen.slope, base), dot(seen.slope, rise)
    square = product(rise, rise) - (sine * climb) ** 2
    half = product(base, rise) - sine**2 * along * climb
    rest = product(base, base) - (sine * along) ** 2
    root = jnp.sqrt(jnp.maximum(half**2 - square * rest, 0))
    below, top = half + root, root - half
    gain = jnp.where(
        half > 0,
        -rest / jnp.where(below > 0, below, 1),
        top / jnp.where(square != 0, square, 1),
    )
    turns = 1 + dot(seen.slope, still) > _noise(jnp.ones_like(sine), still)
    return level + gain, turns


def _noise(mean: Array, lift: Array) -> Array:
    """What a squared length must exceed to be told from rounding."""
    floor = _LOST * noise_floor(len(lift), lift.dtype)
    return floor * (mean + jnp.sum(lift**2))
