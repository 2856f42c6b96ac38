"""The largest worst gain within an angle of the mean: a root over nearest points."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.linalg import dot
from mtl_optax.core.solvers.min_norm import stationary_weights
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp_from

Array = jax.Array

_MAX_LEVELS = 40
_LOST = 8  # noise floors, below which a squared length has too few digits


@jax.jit
def conic_weights(
    gramian: Array, preference: Array, cosine: ArrayLike, active: Array
) -> Array:
    """Weights of the step that gains most for the worst task, near the mean gradient.

    With `g0 = sum_t preference_t g_t`, the step `d` maximises `min_t <g_t, d>` over the
    active nonzero rows within `|d| <= |g0|` and `<d, g0> >= cosine |g0|^2`. It is g0
    where the preference cancels the rows.

    By Lagrange's conditions d is a multiple of the nearest point to g0 with `<g_t, d>
    >= level` for all t, a `nonnegative_qp` as in CAGrad. With the level its angle to g0
    grows, from 0 to that of the shortest vector of the hull, which is the answer if the
    cone has it. Else find the level at which the point is on the cone: a quadratic on a
    fixed free set, solved exactly. Where 0 is in the hull levels end at 0, with the
    nearest point that conflicts with no row.
    """
    cosines, norms = linalg.cosine_matrix(gramian)
    preference = jnp.where(active, preference, 0)
    rows = active & (norms > 0) & ~linalg.cancels(preference, gramian)
    unit = norms / jnp.maximum(jnp.max(norms), jnp.finfo(norms.dtype).tiny)
    centre = unit * preference
    length = jnp.sqrt(jnp.maximum(dot(centre, dot(cosines, centre)), 0))
    centre /= jnp.where(length > 0, length, 1)
    seen = _seen_from(cosines, unit, centre, cosine, rows)
    point = _on_the_cone(seen, rows)
    mean, lift = _step_along(seen, point)
    lift = jnp.where(rows, length * lift / jnp.where(rows, unit, 1), 0)
    return mean * preference + lift


class _Seen(NamedTuple):
    """Unit rows; the mean gradient has length 1, the unit of gain is the least norm."""

    cosines: Array
    slope: Array  # along the mean gradient
    across: Array  # products of what is across it
    owed: Array  # gain along each for a level of 1
    cosine: Array  # of the cone
    sine: Array
    least: Array  # level of the mean gradient
    first: Array  # a higher one, of a point at no larger angle than the cone's
    stationary: Array


class _Point(NamedTuple):
    """`mean * g0 + sum lift_t g_t`, the nearest to `mean * g0` of its level."""

    mean: Array  # 1, or 0: at a level without end only directions are left
    level: Array
    lift: Array
    free: Array
    along: Array  # the mean gradient
    aside: Array  # length across it
    lost: Array  # all but rounding has cancelled


class _Search(NamedTuple):
    step: Array
    point: _Point
    level: Array  # to be tried next
    low: Array  # inside the cone
    high: Array  # outside
    miss: Array
    done: Array


def _seen_from(
    cosines: Array, norms: Array, centre: Array, cosine: ArrayLike, rows: Array
) -> _Seen:
    cosine = jnp.clip(jnp.asarray(cosine, norms.dtype), 0, 1)
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    shortest = jnp.min(jnp.where(rows, norms, jnp.inf))
    slope = jnp.clip(jnp.where(rows, dot(cosines, centre), 0), -1, 1)
    cosines = linalg.among(cosines, rows)
    across = cosines - slope[:, None] * slope[None, :]
    owed = jnp.where(rows, shortest / jnp.where(rows, norms, 1), 0)
    divisor = jnp.where(rows, owed, 1)
    least = jnp.min(jnp.where(rows, slope / divisor, jnp.inf))
    first = jnp.min(jnp.where(rows, (slope + sine) / divisor, jnp.inf))
    stationary, _ = stationary_weights(cosines, rows)
    return _Seen(cosines, slope, across, owed, cosine, sine, least, first, stationary)


def _on_the_cone(seen: _Seen, rows: Array) -> _Point:
    """The point of the highest level in the cone."""
    zero, nothing = jnp.zeros_like(seen.sine), jnp.zeros_like(seen.slope)
    mean = _Point(zero + 1, zero, nothing, nothing > 0, zero + 1, zero, zero > 0)
    end = jnp.maximum(seen.least, 0)  # of the levels at a stationary point
    start = _Search(
        step=jnp.int32(0),
        point=mean,
        level=jnp.where(seen.stationary, end, 1),
        low=seen.least,
        high=jnp.where(seen.stationary, end, jnp.inf),
        miss=zero + jnp.inf,
        done=~jnp.any(rows) | (seen.sine <= 0),
    )
    return lax.while_loop(
        lambda state: ~state.done & (state.step < _MAX_LEVELS),
        lambda state: _advance(seen, state),
        start,
    ).point


def _advance(seen: _Seen, state: _Search) -> _Search:
    """One level; the first is without end, or the last of a stationary point."""
    ended = seen.stationary | (state.step > 0)
    point = _nearest(seen, ended.astype(seen.sine.dtype), state.level, state.point.free)
    out = (seen.cosine * point.aside > seen.sine * point.along) | point.lost
    low = jnp.where(ended & ~out, state.level, state.low)
    high = jnp.where(ended & out, state.level, state.high)
    new, turns = _level_on_piece(seen, point)
    within = (new > low) & (new < high) & ~point.lost
    further = seen.least + jnp.maximum(2 * (low - seen.least), seen.first - seen.least)
    other = jnp.where(jnp.isfinite(high), (low + high) / 2, further)
    new = jnp.where(within, new, other)

    eps = jnp.finfo(new.dtype).eps
    miss, rounding = _miss(seen, point)
    # The rounding of its terms is all that can be known, once it stops improving.
    stalled = (~within | (miss > state.miss / 2)) & (miss <= 4 * rounding)
    same = jnp.abs(new - state.level) <= eps * jnp.abs(new)
    close = ended & ~point.lost & (same | stalled | (miss <= 4 * eps))
    done = close | (~out & ((state.step == 0) | (seen.stationary & ~turns)))
    return _Search(state.step + jnp.int32(1), point, new, low, high, miss, done)


def _nearest(seen: _Seen, mean: Array, level: Array, free: Array) -> _Point:
    linear = mean * seen.slope - level * seen.owed
    lift, free = nonnegative_qp_from(seen.cosines, linear, free)
    along = mean + dot(seen.slope, lift)
    aside = jnp.sqrt(jnp.maximum(dot(lift, dot(seen.across, lift)), 0))
    lost = seen.stationary & (along**2 + aside**2 <= _noise(mean, lift))
    return _Point(mean, level, lift, free, along, aside, lost)


def _noise(mean: Array, lift: Array) -> Array:
    """What a squared length must exceed to be told from rounding."""
    floor = _LOST * linalg.noise_floor(len(lift), lift.dtype)
    return floor * (mean + jnp.sum(lift**2))


def _miss(seen: _Seen, point: _Point) -> tuple[Array, Array]:
    """How far the point is from the cone, squared, over its terms; their rounding."""
    aside, along = seen.cosine * point.aside, seen.sine * jnp.abs(point.along)
    both = aside**2 + along**2
    both = jnp.where(both > 0, both, 1)
    terms = dot(point.lift, dot(jnp.abs(seen.cosines), point.lift)) + along**2
    owed = jnp.abs(seen.slope) + jnp.abs(point.level) * seen.owed
    terms += aside * jnp.sum(jnp.where(point.free, owed, 0))
    miss = jnp.abs((aside - along) * (aside + along)) / both
    return miss, jnp.finfo(miss.dtype).eps * terms / both


def _level_on_piece(seen: _Seen, point: _Point) -> tuple[Array, Array]:
    """The level on the cone with this free set, and whether levels turn its point.

    From the point, or, where that is at a level without end, from level 0.
    """
    solve = linalg.solver_among(seen.cosines, point.free)
    rise, still = solve(seen.owed), -solve(seen.slope)
    endless = point.mean <= 0
    base = jnp.where(endless, still, point.lift)
    level = jnp.where(endless, 0, point.level)
    along, climb = 1 + dot(seen.slope, base), dot(seen.slope, rise)
    across = seen.cosine**2 * dot(seen.across, rise)
    # square x^2 + 2 half x + rest = 0 for a level higher by x
    square = dot(rise, across) - (seen.sine * climb) ** 2
    half = dot(base, across) - seen.sine**2 * along * climb
    rest = seen.cosine**2 * dot(base, dot(seen.across, base)) - (seen.sine * along) ** 2
    root = jnp.sqrt(jnp.maximum(half**2 - square * rest, 0))
    small = -rest / jnp.where(half + root > 0, half + root, 1)
    large = (root - half) / jnp.where(square != 0, square, 1)
    turns = 1 + dot(seen.slope, still) > _noise(jnp.ones_like(along), still)
    # Another piece comes before level 0 where a lift would be negative there.
    floor = linalg.noise_floor(len(still), still.dtype) * (1 + jnp.max(jnp.abs(still)))
    turns |= jnp.any(point.free & (still < -_LOST * floor))
    return level + jnp.where(half > 0, small, large), turns


def _step_along(seen: _Seen, point: _Point) -> tuple[Array, Array]:
    """How much of the mean gradient, and of each row, is in the step to the point."""
    length = jnp.hypot(point.along, point.aside)
    scale = 1 / jnp.where(length > 0, length, 1)
    # A step that harms the worst task is as short as the cone's axis allows.
    way = jnp.where(point.along > 0, point.along * scale, 1)
    shorter = jnp.minimum(seen.cosine / way, 1)
    scale = jnp.where(point.level < 0, shorter * scale, scale)
    alone = point.lost | ~jnp.any(point.lift > 0)  # exactly the mean gradient
    lift = jnp.where(alone, 0, scale * point.lift)
    return jnp.where(alone, 1, scale * point.mean), lift
