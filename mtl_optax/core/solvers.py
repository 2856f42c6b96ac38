"""Exact solvers for the small `[T, T]` problems behind multi-task gradient methods.

Everything here is a pure function of a Gramian `G = J J'` of T task gradients. Each
solver works on the cosine matrix and keeps the row norms aside, so that tasks whose
gradients differ by many orders of magnitude, or are all very long or very short, do
not spoil one another's accuracy. All loops are bounded; nothing leaves the device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike, DTypeLike

Array = jax.Array

# TPUs and recent GPUs would otherwise multiply in bfloat16 or TF32.
_dot = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)

_PIVOT_RETRIES = 3  # full exchanges allowed without progress before single pivots
_MAX_SWEEPS = 10
_MAX_NEWTON = 50
_MAX_LEVELS = 30


def noise_floor(num_tasks: int, dtype: DTypeLike) -> float:
    """Relative size below which a T x T quantity is rounding error: `4 T eps`."""
    return 4.0 * num_tasks * float(jnp.finfo(dtype).eps)


def cosine_matrix(gramian: Array) -> tuple[Array, Array]:
    """Cosines `[T, T]` and norms `[T]` of the rows behind a Gramian.

    The diagonal is exactly 1. A row of zero norm has cosine 0 with every other.
    """
    square = jnp.diagonal(gramian)
    # Subnormal squares carry too few digits to be rows.
    norms = jnp.sqrt(jnp.where(square < jnp.finfo(gramian.dtype).tiny, 0, square))
    inverse = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    cosines = jnp.clip(gramian * inverse[:, None] * inverse[None, :], -1, 1)
    return jnp.where(_eye(gramian), 1, cosines), norms


def nonnegative_qp(matrix: Array, linear: Array) -> Array:
    """`argmin 1/2 z'Qz + q'z` over `z >= 0`, for a positive semi-definite Q.

    Block principal pivoting: guess which entries are free, solve for them, and
    exchange every entry whose sign contradicts the guess. The answer does not depend
    on the scale of Q's rows. Zero diagonal entries count as 1.
    """
    none_free = jnp.zeros(linear.shape, bool)
    return _nonnegative_qp(matrix, linear, none_free)[0]


def project_dual_cone(gramian: Array, weights: Array) -> Array:
    """Weights of the projection of `sum_i weights_i g_i` on `{d: <g_i, d> >= 0}`.

    That is `argmin v'Gv` over `v >= weights`. Rows of zero norm keep their weight.
    """
    cosines, norms = cosine_matrix(gramian)
    lift = nonnegative_qp(cosines, _dot(cosines, norms * weights))
    positive = norms > 0
    return weights + jnp.where(positive, lift / jnp.where(positive, norms, 1), 0)


def min_norm_weights(gramian: Array, active: Array) -> Array:
    """Simplex weights of the shortest vector in the hull of the active rows (MGDA).

    Exactly 0 for inactive rows. Active rows that are zero share the weight equally;
    without an active row all weights are 0.
    """
    cosines, norms = cosine_matrix(gramian)
    weights = _min_norm(cosines, norms, active & (norms > 0))
    zero_rows = active & (norms == 0)
    share = zero_rows.astype(weights.dtype)
    share /= jnp.maximum(jnp.sum(share), 1)
    return jnp.where(jnp.any(zero_rows), share, weights)


def in_hull(gramian: Array, active: Array) -> Array:
    """Whether 0 is in the convex hull of the active nonzero rows, within rounding.

    This is Pareto stationarity. True where there is no such row.
    """
    cosines, norms = cosine_matrix(gramian)
    return _stationary(cosines, active & (norms > 0))[0]


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


def cagrad_weights(
    gramian: Array, preference: Array, c: ArrayLike, active: Array
) -> Array:
    """Weights of CAGrad's direction, without rescaling.

    With `g0 = sum_t preference_t g_t`, the direction `d` maximises `min_t <g_t, d>`
    over the active nonzero rows within `|d - g0| <= c |g0|`. Where 0 is `in_hull`, it
    is the nearest `d` to g0 that conflicts with no row, if the ball has one.
    """
    cosines, norms = cosine_matrix(gramian)
    rows = active & (norms > 0)
    preference = jnp.where(active, preference, 0)
    unit = norms / jnp.maximum(jnp.max(norms), jnp.finfo(norms.dtype).tiny)
    lift = _ascend_level(cosines, unit, unit * preference, c, rows)
    return preference + jnp.where(rows, lift / jnp.where(rows, unit, 1), 0)


def psd_eigh(
    matrix: Array, cutoff: ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """Eigenvalues, eigenvectors, and which values exceed `cutoff` times the largest.

    The values below (by default `noise_floor`) are replaced by 1, to divide by.
    """
    if cutoff is None:
        cutoff = noise_floor(matrix.shape[0], matrix.dtype)
    values, vectors = jnp.linalg.eigh(matrix)
    keep = values > cutoff * jnp.maximum(values[-1], 0)
    return jnp.where(keep, values, 1), vectors, keep


def _eye(matrix: Array) -> Array:
    return jnp.eye(matrix.shape[0], dtype=bool)


def _among(matrix: Array, rows: Array) -> Array:
    """The matrix with the other rows and columns replaced by those of the identity."""
    both = rows[:, None] & rows[None, :]
    return jnp.where(both, matrix, _eye(matrix).astype(matrix.dtype))


def _solve_among(matrix: Array, right: Array, rows: Array) -> Array:
    """Solves for the named rows only, slightly regularised; 0 elsewhere."""
    shift = jnp.where(_eye(matrix), noise_floor(matrix.shape[0], matrix.dtype), 0)
    factor = lax.linalg.cholesky(_among(matrix, rows) + shift)
    return cho_solve((factor, True), jnp.where(rows, right, 0))


# --- Block principal pivoting ---------------------------------------------------------


class _Pivoting(NamedTuple):
    step: Array
    free: Array  # the guess to be tried next
    fewest: Array  # wrong signs in the best guess so far, and
    retries: Array  # how many full exchanges may still fail to improve on it
    solved: Array  # no wrong sign
    best: Array
    best_free: Array
    best_residual: Array


def _nonnegative_qp(matrix: Array, linear: Array, free: Array) -> tuple[Array, Array]:
    """The solution and its free set, from a first guess of the latter."""
    size = jnp.diagonal(matrix)
    size = jnp.sqrt(jnp.where(size > 0, size, 1))
    matrix = jnp.where(_eye(matrix), 1, matrix / size[:, None] / size[None, :])
    linear = linear / size
    scale = jnp.max(jnp.abs(linear))
    scale = jnp.where(scale > 0, scale, 1)
    linear = linear / scale

    state = _pivot(matrix, linear, free)
    refined = _refine(matrix, linear, state.best, state.best_free)
    better = _residual(matrix, linear, refined) <= state.best_residual
    solution = jnp.where(better, refined, state.best)
    solution = _sweep(matrix, linear, solution, state.solved)
    return solution * scale / size, state.best_free


def _residual(matrix: Array, linear: Array, point: Array) -> Array:
    """Largest violation of `z >= 0, Qz + q >= 0, z'(Qz + q) = 0`."""
    return jnp.max(jnp.abs(jnp.minimum(point, _dot(matrix, point) + linear)))


def _pivot(matrix: Array, linear: Array, free: Array) -> _Pivoting:
    num_tasks, dtype = linear.shape[0], linear.dtype
    eps = jnp.finfo(dtype).eps
    index = jnp.arange(num_tasks, dtype=jnp.int32)

    def unsolved(state: _Pivoting) -> Array:
        return ~state.solved & (state.step < 50 + num_tasks)

    def exchange(state: _Pivoting) -> _Pivoting:
        free = state.free
        point = _solve_among(matrix, -linear, free)
        slope = _dot(matrix, point) + linear
        rounding = eps * (_dot(jnp.abs(matrix), jnp.abs(point)) + jnp.abs(linear))
        wrong = jnp.where(free, point < 0, slope < -rounding)
        count = jnp.sum(wrong, dtype=jnp.int32)
        progress = count < state.fewest
        retries = jnp.where(progress, jnp.int32(_PIVOT_RETRIES), state.retries - 1)
        # Exchanging one entry by a fixed order cannot cycle (Murty), but is slow.
        single = wrong & (index == jnp.max(jnp.where(wrong, index, -1)))
        clipped = jnp.maximum(point, 0)
        residual = _residual(matrix, linear, clipped)
        best = residual < state.best_residual
        return _Pivoting(
            step=state.step + jnp.int32(1),
            free=free ^ jnp.where(retries >= 0, wrong, single),
            fewest=jnp.minimum(count, state.fewest),
            retries=jnp.maximum(retries, -1),
            solved=count == 0,
            best=jnp.where(best, clipped, state.best),
            best_free=jnp.where(best, free, state.best_free),
            best_residual=jnp.where(best, residual, state.best_residual),
        )

    start = _Pivoting(
        step=jnp.int32(0),
        free=free,
        fewest=jnp.int32(num_tasks + 1),
        retries=jnp.int32(_PIVOT_RETRIES),
        solved=jnp.asarray(False),
        best=jnp.zeros_like(linear),
        best_free=jnp.zeros_like(free),
        best_residual=jnp.asarray(jnp.inf, dtype),
    )
    return lax.while_loop(unsolved, exchange, start)


def _refine(matrix: Array, linear: Array, point: Array, free: Array) -> Array:
    """Takes out most of what the regularisation did to the free entries."""
    slope = _dot(matrix, point) + linear
    return jnp.maximum(point - _solve_among(matrix, slope, free), 0)


def _sweep(matrix: Array, linear: Array, point: Array, solved: Array) -> Array:
    """Coordinate descent, for the rare problem on which pivoting was cut off."""
    num_tasks = linear.shape[0]
    floor = noise_floor(num_tasks, linear.dtype)

    def unsolved(state: tuple[Array, Array, Array]) -> Array:
        return ~state[2] & (state[0] < _MAX_SWEEPS)

    def descend(i: Array, point: Array) -> Array:
        slope = _dot(matrix[i], point) + linear[i]
        return point.at[i].set(jnp.maximum(point[i] - slope, 0))

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        step, point, _ = state
        point = lax.fori_loop(jnp.int32(0), jnp.int32(num_tasks), descend, point)
        return step + jnp.int32(1), point, _residual(matrix, linear, point) <= floor

    solved = solved | (_residual(matrix, linear, point) <= floor)
    return lax.while_loop(unsolved, sweep, (jnp.int32(0), point, solved))[1]


# --- Min-norm point -------------------------------------------------------------------


def _min_norm(cosines: Array, norms: Array, rows: Array) -> Array:
    """Min-norm weights over `rows`, none of which is zero.

    With `h ~ 1/norms` of length 1, the minimiser of `y'Cy + (h'y - 1)^2` over `y >= 0`
    is a multiple of `norms * weights`: along each ray the optimum is an increasing
    function of the squared norm. Unit length makes both terms of equal size where the
    rows are orthogonal, so neither is lost to rounding.
    """
    shortest = jnp.min(jnp.where(rows, norms, jnp.inf))
    inverse = jnp.where(rows, shortest / jnp.where(rows, norms, 1), 0)
    inverse /= jnp.maximum(jnp.sqrt(jnp.sum(inverse**2)), 0.5)
    matrix = _among(cosines, rows) + inverse[:, None] * inverse[None, :]
    weights = inverse * nonnegative_qp(matrix, -inverse)
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def _stationary(cosines: Array, rows: Array) -> tuple[Array, Array]:
    """Whether 0 is in the hull of unit rows, and their min-norm weights."""
    weights = _min_norm(cosines, jnp.ones_like(cosines[0]), rows)
    square = _dot(weights, _dot(cosines, weights))
    floor = noise_floor(weights.shape[0], weights.dtype)
    return square <= floor * jnp.sum(weights**2), weights


# --- Nash and alpha-fair bargaining ---------------------------------------------------


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
        slope = _dot(scaled, root) - root
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
    start = jnp.maximum(_dot(weight, _dot(cosines, weight)), floor * square)
    start = jnp.log(square / start) / (1 + beta) * jnp.ones_like(log_norms)
    zero = jnp.int32(0), start, jnp.asarray(jnp.inf, dtype), jnp.asarray(False)
    return lax.while_loop(unsolved, advance, zero)[1]


# --- CAGrad ---------------------------------------------------------------------------


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
    slope = jnp.where(rows, _dot(cosines, centre), 0)
    length = jnp.sqrt(jnp.maximum(_dot(centre, _dot(cosines, centre)), 0))
    radius = jnp.asarray(c, norms.dtype) * length
    cosines = _among(cosines, rows)

    def unsolved(state: _Level) -> Array:
        return ~state.done & (state.step < _MAX_LEVELS)

    def advance(state: _Level) -> _Level:
        level = state.level
        linear = slope - level * unit
        lift, free = _nonnegative_qp(cosines, linear, state.free)
        distance = jnp.sqrt(jnp.maximum(_dot(lift, _dot(cosines, lift)), 0))
        above = distance > radius
        low = jnp.where(above, state.low, level)
        high = jnp.where(above, level, state.high)
        gain = _level_gain(cosines, unit, lift, free, distance, radius)
        new = level + gain
        new = jnp.where((new > low) & (new < high), new, (low + high) / 2)
        close = jnp.abs(distance - radius) <= 4 * eps * radius
        same = jnp.abs(new - level) <= eps * jnp.abs(level)
        # A stationary problem starts at its optimum, level 0, if the ball has it.
        done = close | same | (stationary & ~above & (state.step == 0))
        return _Level(
            state.step + jnp.int32(1), new, low, high, lift, free, distance, done
        )

    stationary, weights = _stationary(cosines, rows)
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
    square = jnp.maximum(_dot(weights, _dot(cosines, weights)), 0)
    mixed = _dot(weights, slope) + radius * jnp.sqrt(square)
    total = _dot(weights, unit)
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
    first = _dot(unit, lift)
    second = _dot(unit, _solve_among(cosines, unit, free))
    excess = (radius - distance) * (radius + distance)
    root = first**2 + second * excess
    bottom = first + jnp.sqrt(jnp.maximum(root, 0))
    exact = excess / jnp.where(bottom > 0, bottom, 1)
    # No root on this piece: a Newton step on the distance itself.
    tangent = (radius - distance) * distance / jnp.where(first > 0, first, 1)
    return jnp.where(root >= 0, exact, tangent)
