"""Quadratic programs over the nonnegative orthant: block principal pivoting.

One solver for MGDA (`min_norm`), UPGrad and DualProj (`dual_cone`), and the inner steps
of CAGrad. All loops are bounded; nothing leaves the device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.solvers.linalg import dot, eye, noise_floor, solve_among

Array = jax.Array

_PIVOT_RETRIES = 3  # full exchanges allowed without progress before single pivots
_MAX_SWEEPS = 10


@jax.jit
def nonnegative_qp(matrix: Array, linear: Array) -> Array:
    """`argmin 1/2 z'Qz + q'z` over `z >= 0`, for a positive semi-definite Q.

    Block principal pivoting: guess which entries are free, solve for them, and
    exchange every entry whose sign contradicts the guess. The answer does not depend
    on the scale of Q's rows. Zero diagonal entries count as 1.
    """
    none_free = jnp.zeros(linear.shape, bool)
    return nonnegative_qp_from(matrix, linear, none_free)[0]


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
    solution = sweep_coordinates(matrix, linear, solution, state.solved)
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


def sweep_coordinates(
    matrix: Array, linear: Array, point: Array, solved: Array
) -> Array:
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
