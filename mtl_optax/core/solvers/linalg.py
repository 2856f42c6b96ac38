"""Linear algebra of `[T, T]` matrices, and where their rounding ends.

Solvers see a Gramian `G = J J'` of T task gradients as cosines, with the row norms kept
aside, so that tasks whose gradients differ by many orders of magnitude, or are all very
long or very short, do not spoil one another's accuracy. Solvers and what they share are
jitted, so that eager calls compile their loops once.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve
from jax.typing import DTypeLike

Array = jax.Array

# TPUs and recent GPUs would otherwise multiply in bfloat16 or TF32.
dot = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


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
    largest = jnp.max(jnp.abs(weights))  # whose square may be no number
    weights = weights / jnp.where(largest > 0, largest, 1)
    apart = jnp.sum(weights * (weights * jnp.diagonal(gramian)))
    floor = noise_floor(weights.shape[0], weights.dtype)
    return dot(weights, dot(gramian, weights)) <= floor * apart


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


def solver_among(matrix: Array, rows: Array) -> Callable[[Array], Array]:
    """From a right side the solution for the named rows only; 0 elsewhere.

    The diagonal is raised by the `noise_floor`, so that a singular matrix has a factor.
    """
    shift = jnp.where(eye(matrix), noise_floor(matrix.shape[0], matrix.dtype), 0)
    factor = lax.linalg.cholesky(among(matrix, rows) + shift)
    return lambda right: cho_solve((factor, True), jnp.where(rows, right, 0))


def solve_among(matrix: Array, right: Array, rows: Array) -> Array:
    """Solves for the named rows only, slightly regularised; 0 elsewhere."""
    return solver_among(matrix, rows)(right)
