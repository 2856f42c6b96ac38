"""Exact solvers for the small `[T, T]` problems behind multi-task gradient methods.

Everything here (and in nash_solver and cagrad_solver, which build on it) is a pure
function of a Gramian `G = J J'` of T task gradients. Each solver works on the cosine
matrix and keeps the row norms aside, so that tasks whose gradients differ by many
orders of magnitude, or are all very long or very short, do not spoil one another's
accuracy. All loops are bounded; nothing leaves the device. The entry points are jitted,
so that eager calls compile their loops once.
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
dot = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)

_PIVOT_RETRIES = 3  # full exchanges allowed without progress before single pivots
_MAX_SWEEPS = 10


def noise_floor(num_tasks: int, dtype: DTypeLike) -> float:
    """Relative size below which a T x T quantity is rounding error: `4 T eps`."""
    return 4.0 * num_tasks * float(jnp.finfo(dtype).eps)


@jax.jit
def cosine_matrix(gramian: Array) -> tuple[Array, Array]:
    """Cosines `[T, T]` and norms `[T]` of the rows behind a Gramian.

    The diagonal is exactly 1. A row of zero norm has cosine 0 with every other.
    """
    square = jnp.diagonal(gramian)
    # Subnormal squares carry too few digits to be rows.
    norms = jnp.sqrt(jnp.where(square < jnp.finfo(gramian.dtype).tiny, 0, square))
    inverse = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    cosines = jnp.clip(gramian * inverse[:, None] * inverse[None, :], -1, 1)
    cosines = (cosines + cosines.T) / 2
    return jnp.where(eye(gramian), 1, cosines), norms


@jax.jit
def cancels(weights: Array, gramian: Array) -> Array:
    """Whether weights cancel the rows as far as the Gramian's rounding lets one tell.

    That is, whether `w'Gw` is within `noise_floor` of its value for orthogonal rows.
    """
    apart = jnp.sum(weights**2 * jnp.diagonal(gramian))
    floor = noise_floor(weights.shape[0], weights.dtype)
    return dot(weights, dot(gramian, weights)) <= floor * apart


@jax.jit
def nonnegative_qp(matrix: Array, linear: Array) -> Array:
    """`argmin 1/2 z'Qz + q'z` over `z >= 0`, for a positive semi-definite Q.

    Block principal pivoting: guess which entries are free, solve for them, and
    exchange every entry whose sign contradicts the guess. The answer does not depend
    on the scale of Q's rows. Zero diagonal entries count as 1.
    """
    none_free = jnp.zeros(linear.shape, bool)
    return nonnegative_qp_from(matrix, linear, none_free)[0]


@jax.jit
def project_dual_cone(gramian: Array, weights: Array) -> Array:
    """Weights of the projection of `sum_i weights_i g_i` on `{d: <g_i, d> >= 0}`.

    That is `argmin v'Gv` over `v >= weights`. Rows of zero norm keep their weight.
    """
    cosines, norms = cosine_matrix(gramian)
    lift = nonnegative_qp(cosines, dot(cosines, norms * weights))
    positive = norms > 0
    return weights + jnp.where(positive, lift / jnp.where(positive, norms, 1), 0)


def regularised_projection(gramian: Array, weights: Array, reg_eps: ArrayLike) -> Array:
    """`project_dual_cone` on the trace-normalised Gramian, `reg_eps` on its diagonal.

    Exactly 0 where rounding is all that is left of a projection, and could conflict.
    """
    trace = jnp.trace(gramian)
    regularised = gramian / jnp.where(trace > 0, trace, 1)
    # TorchJD, which reg_eps reproduces, takes a trace below 1e-4 for zero.
    too_small = (jnp.asarray(reg_eps) > 0) & (trace < 1e-4)
    regularised = jnp.where(too_small, 0, regularised)
    regularised += reg_eps * jnp.eye(gramian.shape[0], dtype=gramian.dtype)
    projected = project_dual_cone(regularised, weights)
    return jnp.where(cancels(projected, regularised), 0, projected)


@jax.jit
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


@jax.jit
def in_hull(gramian: Array, active: Array) -> Array:
    """Whether 0 is in the convex hull of the active nonzero rows, within rounding.

    This is Pareto stationarity. True where there is no such row.
    """
    cosines, norms = cosine_matrix(gramian)
    return stationary_weights(cosines, active & (norms > 0))[0]


@jax.jit
def psd_eigh(matrix: Array) -> tuple[Array, Array, Array]:
    """Eigenvalues, eigenvectors, and which exceed `noise_floor` times the largest.

    The values below are replaced by 1, to divide by. For matrices whose diagonal is of
    one size, such as cosines; `jacobi_eigh` is for the others.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    floor = noise_floor(matrix.shape[0], matrix.dtype)
    keep = values > floor * jnp.maximum(values[-1], 0)
    return jnp.where(keep, values, 1), vectors, keep


def eye(matrix: Array) -> Array:
    """The boolean identity of the matrix's size."""
    return jnp.eye(matrix.shape[0], dtype=bool)


def among(matrix: Array, rows: Array) -> Array:
    """The matrix with the other rows and columns replaced by those of the identity."""
    both = rows[:, None] & rows[None, :]
    return jnp.where(both, matrix, eye(matrix).astype(matrix.dtype))


def solve_among(matrix: Array, right: Array, rows: Array) -> Array:
    """Solves for the named rows only, slightly regularised; 0 elsewhere."""
    shift = jnp.where(eye(matrix), noise_floor(matrix.shape[0], matrix.dtype), 0)
    factor = lax.linalg.cholesky(among(matrix, rows) + shift)
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


def nonnegative_qp_from(
    matrix: Array, linear: Array, free: Array
) -> tuple[Array, Array]:
    """The solution and its free set, from a first guess of the latter."""
    size = jnp.diagonal(matrix)
    size = jnp.sqrt(jnp.where(size > 0, size, 1))
    matrix = jnp.where(eye(matrix), 1, matrix / size[:, None] / size[None, :])
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
    return jnp.max(jnp.abs(jnp.minimum(point, dot(matrix, point) + linear)))


def _pivot(matrix: Array, linear: Array, free: Array) -> _Pivoting:
    num_tasks, dtype = linear.shape[0], linear.dtype
    eps = jnp.finfo(dtype).eps
    index = jnp.arange(num_tasks, dtype=jnp.int32)

    def unsolved(state: _Pivoting) -> Array:
        return ~state.solved & (state.step < 50 + num_tasks)

    def exchange(state: _Pivoting) -> _Pivoting:
        free = state.free
        point = solve_among(matrix, -linear, free)
        slope = dot(matrix, point) + linear
        rounding = eps * (dot(jnp.abs(matrix), jnp.abs(point)) + jnp.abs(linear))
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
    slope = dot(matrix, point) + linear
    return jnp.maximum(point - solve_among(matrix, slope, free), 0)


def _sweep(matrix: Array, linear: Array, point: Array, solved: Array) -> Array:
    """Coordinate descent, for the rare problem on which pivoting was cut off."""
    num_tasks = linear.shape[0]
    floor = noise_floor(num_tasks, linear.dtype)

    def unsolved(state: tuple[Array, Array, Array]) -> Array:
        return ~state[2] & (state[0] < _MAX_SWEEPS)

    def descend(i: Array, point: Array) -> Array:
        slope = dot(matrix[i], point) + linear[i]
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
    matrix = among(cosines, rows) + inverse[:, None] * inverse[None, :]
    weights = inverse * nonnegative_qp(matrix, -inverse)
    total = jnp.sum(weights)
    return weights / jnp.where(total > 0, total, 1)


def stationary_weights(cosines: Array, rows: Array) -> tuple[Array, Array]:
    """Whether 0 is in the hull of unit rows, and their min-norm weights."""
    weights = _min_norm(cosines, jnp.ones_like(cosines[0]), rows)
    square = dot(weights, dot(cosines, weights))
    floor = noise_floor(weights.shape[0], weights.dtype)
    return square <= floor * jnp.sum(weights**2), weights
