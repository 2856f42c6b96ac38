"""Quadratic programs over the nonnegative orthant: a guess by blocks, a finite descent.

One solver for MGDA (`min_norm`), UPGrad and DualProj (`dual_cone`), and the inner steps
of CAGrad. All loops are bounded; nothing leaves the device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.solvers.linalg import dot, eye, noise_floor, solver_among

Array = jax.Array

_RETRIES = 3  # exchanges that may fail to improve on the best guess
_WRONG = 4  # roundings by which a slope must be negative to count
_CLOSE = 8  # roundings of the largest terms that a solution may be off
_ROUNDS = 6  # of taking out what the regularisation did


@jax.jit
def nonnegative_qp(matrix: Array, linear: Array) -> Array:
    """`argmin 1/2 z'Qz + q'z` over `z >= 0`, for a positive semi-definite Q.

    Q may be singular (more tasks than dimensions), if q is in its range. The solution
    violates `z >= 0, Qz + q >= 0, z'(Qz + q) = 0` by some roundings of their largest
    terms. It does not depend on the scale of Q's rows. Zero diagonal entries count
    as 1.
    """
    none_free = jnp.zeros(linear.shape, bool)
    return nonnegative_qp_from(matrix, linear, none_free)[0]


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

    guess = _exchange(matrix, linear, free)
    end = _descend(matrix, linear, guess)
    return end.point * scale / size, end.free


def _rounding(matrix: Array, linear: Array, point: Array) -> Array:
    """By how much `Qz + q` may be off."""
    eps = jnp.finfo(linear.dtype).eps
    return eps * (dot(jnp.abs(matrix), jnp.abs(point)) + jnp.abs(linear))


def _off(point: Array, slope: Array) -> Array:
    """By how much the conditions of the solution are violated, at most."""
    return jnp.max(jnp.abs(jnp.minimum(point, slope)))


class _Guess(NamedTuple):
    free: Array  # to be tried next
    fewest: Array  # wrong signs in the best guess so far, and
    retries: Array  # how many exchanges may still fail to improve on it
    solved: Array  # no wrong sign
    exact: Array  # nor a residual beyond rounding
    point: Array
    best: Array  # the best guess


def _exchange(matrix: Array, linear: Array, free: Array) -> _Guess:
    """Block principal pivoting: exchanges every entry whose sign contradicts the guess.

    A few steps solve nearly every problem whose matrix is not singular.
    """
    num_tasks = linear.shape[0]

    def unsolved(state: _Guess) -> Array:
        return ~state.solved & (state.retries >= 0)

    def exchange(state: _Guess) -> _Guess:
        free = state.free
        solve = solver_among(matrix, free)
        point = -solve(linear)
        slope = dot(matrix, point) + linear
        rounding = _rounding(matrix, linear, point)
        below = slope < -_WRONG * rounding
        wrong = jnp.where(free, point < 0, below)
        count = jnp.sum(wrong, dtype=jnp.int32)
        progress = count < state.fewest
        point = jnp.maximum(point - solve(slope), 0)  # without the regularisation
        off = _off(point, dot(matrix, point) + linear)
        return _Guess(
            free=free ^ wrong,
            fewest=jnp.minimum(count, state.fewest),
            retries=jnp.where(progress, jnp.int32(_RETRIES), state.retries - 1),
            solved=count == 0,
            exact=(count == 0) & (off <= _CLOSE * jnp.max(rounding)),
            point=point,
            best=jnp.where(progress, free, state.best),
        )

    start = _Guess(
        free=free,
        fewest=jnp.int32(num_tasks + 1),
        retries=jnp.int32(_RETRIES),
        solved=jnp.asarray(False),
        exact=jnp.asarray(False),
        point=jnp.zeros_like(linear),
        best=free,
    )
    return lax.while_loop(unsolved, exchange, start)


class _Descent(NamedTuple):
    step: Array
    rounds: Array  # solutions of the regularised problem so far
    centre: Array  # the last of them
    point: Array  # nonnegative, 0 where not free; its objective never rises
    free: Array
    entered: Array  # the entry that was freed last and has not moved yet
    barred: Array  # entries that left as they had entered, since the last full step
    solved: Array


def _descend(matrix: Array, linear: Array, guess: _Guess) -> _Descent:
    """Lawson and Hanson's active set method, from whatever the guess is.

    Goes to the minimum over the free entries, or until one of them reaches 0, which
    then is free no more; at a minimum the entry with the steepest slope is freed. Since
    the objective falls, no free set comes twice: it ends at a solution, of the
    regularised problem. That is the centre of the next, whose solution is nearer to
    that of the given one by orders of magnitude: usually the first is good enough.
    """
    num_tasks = linear.shape[0]
    rho = noise_floor(num_tasks, linear.dtype)
    index = jnp.arange(num_tasks, dtype=jnp.int32)

    def unsolved(state: _Descent) -> Array:
        # Finite without a bound too; at T=50 and rank 30, 35 steps were the most.
        return ~state.solved & (state.step < 5 * num_tasks + 10)

    def step(state: _Descent) -> _Descent:
        centre = jnp.where(state.free, state.centre, 0)
        # Minimises with rho/2 |target - centre|^2 added.
        solve = solver_among(matrix, state.free)
        target = centre - solve(dot(matrix, centre) + linear)
        low = state.free & (target <= 0)
        blocked = jnp.any(low)
        gap = state.point - target
        share = jnp.where(low, state.point / jnp.where(gap > 0, gap, 1), jnp.inf)
        leaves = low & (share <= jnp.min(share))
        part = jnp.where(blocked, jnp.min(share), 0)
        moved = jnp.where(blocked, state.point - part * gap, target)
        free = state.free & ~leaves
        point = jnp.where(free, jnp.maximum(moved, 0), 0)

        slope = dot(matrix, point) + linear
        rounding = _rounding(matrix, linear, point)
        pulled = slope - rho * state.centre + _WRONG * rounding
        pulled = jnp.where(free | state.barred, jnp.inf, pulled)
        enters = ~blocked & (index == lax.argmin(pulled, 0, jnp.int32)) & (pulled < 0)
        stands = ~blocked & ~jnp.any(enters)
        rounds = state.rounds + stands.astype(jnp.int32)
        # Rounding alone sends an entry back where it came from: not to be tried again.
        back = leaves & state.entered & (part <= 0)
        return _Descent(
            step=state.step + jnp.int32(1),
            rounds=rounds,
            centre=jnp.where(stands, point, state.centre),
            point=point,
            free=free | enters,
            entered=jnp.where(blocked, state.entered & ~leaves, enters),
            barred=(state.barred & ~stands) | back,
            solved=stands
            & (
                (_off(point, slope) <= _CLOSE * jnp.max(rounding)) | (rounds >= _ROUNDS)
            ),
        )

    nothing = jnp.zeros(num_tasks, bool)
    point = jnp.where(guess.solved, guess.point, 0)
    start = _Descent(
        step=jnp.int32(0),
        rounds=jnp.int32(0),
        centre=point,
        point=point,
        free=jnp.where(guess.solved, guess.free, guess.best),
        entered=nothing,
        barred=nothing,
        solved=guess.exact,
    )
    return lax.while_loop(unsolved, step, start)
