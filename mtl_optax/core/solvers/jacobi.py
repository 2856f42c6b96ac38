"""Eigenvalues of a Gramian whose rows differ by orders of magnitude."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtl_optax.core.solvers.linalg import dot

Array = jax.Array

_MAX_SWEEPS = 15


@jax.jit
def jacobi_eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues `[T]`, unsorted, and eigenvectors `[T, T]` of a Gramian.

    `jnp.linalg.eigh` finds small eigenvalues to within rounding of the largest, which
    loses a task whose gradient is 1e-3 of another's in float32. Jacobi rotations find
    each to within rounding of itself, if the cosine matrix is well conditioned (Demmel
    and Veselic 1992). All disjoint pairs are rotated at once: T-1 steps a sweep.
    """
    num_tasks = matrix.shape[0]
    rounds = jnp.asarray(_rounds(num_tasks + num_tasks % 2))
    matrix = jnp.pad(matrix, (0, num_tasks % 2))
    tolerance = jnp.finfo(matrix.dtype).eps

    def unsolved(state: tuple[Array, Array, Array]) -> Array:
        sweep, matrix, _ = state
        return (sweep < _MAX_SWEEPS) & (_largest_cosine(matrix) > tolerance)

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, matrix, vectors = state

        def rotate(i: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
            return _rotate(*both, pairs=rounds[i])

        last = jnp.int32(rounds.shape[0])
        turned = lax.fori_loop(jnp.int32(0), last, rotate, (matrix, vectors))
        return count + jnp.int32(1), *turned

    start = jnp.int32(0), matrix, jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    _, turned, vectors = lax.while_loop(unsolved, sweep, start)
    values = jnp.maximum(jnp.diagonal(turned), 0)
    return values[:num_tasks], vectors[:num_tasks, :num_tasks]


def _rounds(size: int) -> np.ndarray:
    """Round-robin: every pair meets once, `[size - 1, 2, size / 2]`."""
    order, rounds = list(range(size)), []
    for _ in range(size - 1):
        half = size // 2
        rounds.append((order[:half], order[half:][::-1]))
        order = [order[0], order[-1], *order[1:-1]]
    return np.array(rounds, np.int32).reshape(-1, 2, size // 2)


def _largest_cosine(matrix: Array) -> Array:
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 0))
    size = jnp.where(size > 0, size, 1)
    cosines = jnp.abs(matrix) / size[:, None] / size[None, :]
    return jnp.max(jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 0, cosines))


def _rotate(matrix: Array, vectors: Array, pairs: Array) -> tuple[Array, Array]:
    """One rotation in each of the planes of disjoint `pairs` `[2, size / 2]`."""
    p, q = pairs
    aside = matrix[p, q]
    ratio = (matrix[q, q] - matrix[p, p]) / (2 * jnp.where(aside == 0, 1, aside))
    tangent = jnp.where(ratio < 0, -1, 1) / (jnp.abs(ratio) + jnp.hypot(1, ratio))
    tangent = jnp.where(aside == 0, 0, tangent).astype(matrix.dtype)
    cosine = 1 / jnp.sqrt(1 + tangent**2)
    sine = tangent * cosine
    turn = jnp.zeros_like(matrix)
    turn = turn.at[p, p].set(cosine).at[q, q].set(cosine)
    turn = turn.at[p, q].set(sine).at[q, p].set(-sine)
    matrix = dot(turn.T, dot(matrix, turn))
    matrix = matrix.at[p, q].set(0).at[q, p].set(0)
    return matrix, dot(vectors, turn)
