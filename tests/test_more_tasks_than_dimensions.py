"""Singular Gramians: the solvers end at a solution, and updates keep their promises.

With more tasks than dimensions the rows surround 0 about as often as not, and which of
them carry the solution is not told by their signs. All conditions are checked in
float64, on the very numbers that the solver saw.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import DTYPES, EPS, everyone

import mtl_optax as mtl
from mtl_optax.core.solvers.dual_cone import project_dual_cone
from mtl_optax.core.solvers.min_norm import min_norm_weights

SIZES = ((12, 6), (20, 10), (20, 19), (50, 30), (50, 49), (64, 8))
KINDS = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "whole": lambda rng, shape: rng.integers(-3, 4, shape).astype(float),
    "low rank": lambda rng, shape: (
        rng.standard_normal((*shape[:2], shape[2] // 2))
        @ rng.standard_normal((shape[0], shape[2] // 2, shape[2]))
    ),
}


@jax.jit
@jax.vmap
def solve(gramian, weights):
    """Projections of both combinations `[2, T]`, and weights of the shortest vector."""
    project = jax.vmap(project_dual_cone, (None, 0))
    return project(gramian, weights), min_norm_weights(gramian, everyone(len(gramian)))


def problems(num_tasks, width, count):
    """Rows `[count, T, n]` of each kind, a third each."""
    rng = np.random.default_rng(num_tasks * 100 + width)
    each = (count // 3, num_tasks, width)
    return np.concatenate([make(rng, each) for make in KINDS.values()])


def unit_rows(gramians):
    norms = np.sqrt(np.diagonal(gramians, axis1=1, axis2=2))
    norms = np.where(norms > 0, norms, 1)
    return gramians / norms[:, :, None] / norms[:, None, :], norms


def largest(matrix, weights):
    """The largest terms of the slopes."""
    return np.einsum("bts,bs->bt", np.abs(matrix), weights).max(-1)


def off(point, slope, scale):
    """By how much `point >= 0, slope >= 0, point' slope = 0` is violated, at most."""
    scale = np.where(scale > 0, scale, 1)
    return (np.abs(np.minimum(point, slope)).max(-1) / scale).max()


@pytest.mark.parametrize(
    ("num_tasks", "width", "dtype"),
    [(*size, np.float32) for size in SIZES]
    + [(20, 10, np.float64), (50, 30, np.float64)],
)
@pytest.mark.rounded
@pytest.mark.slow
def test_optimality_to_some_roundings(num_tasks, width, dtype):
    # benchmarks/optimality.py has all 2,000 a size, and every projection of UPGrad.
    rows = problems(num_tasks, width, 900 if num_tasks < 50 else 90)
    gramian = (rows @ rows.mT).astype(dtype)
    each = np.eye(num_tasks)[np.arange(len(rows)) % num_tasks]
    starts = np.stack([each, np.ones_like(each)], 1).astype(dtype) / num_tasks
    with jax.enable_x64(dtype is np.float64):
        projected, shortest = solve(gramian, starts)

    gramian = gramian.astype(float)
    cosines, norms = unit_rows(gramian)
    for k in range(2):
        weights = norms * np.asarray(projected[:, k], float)
        slope = np.einsum("bts,bs->bt", cosines, weights)
        lift = weights - norms * starts[:, k]
        residual = off(lift, slope, largest(cosines, weights))
        assert residual <= 64 * EPS[dtype], residual / EPS[dtype]

    weights = np.asarray(shortest, float)
    slope = np.einsum("bts,bs->bt", gramian, weights)
    square = np.einsum("bt,bt->b", weights, slope)
    # No row reaches less far than the shortest vector does.
    gap = slope - square[:, None]
    residual = off(norms**2 * weights, gap, largest(gramian, weights))
    assert residual <= 64 * EPS[dtype], residual / EPS[dtype]


def updates_of(method, rows):
    tx = method(rows.shape[1])

    def one(gradients):
        update, state = tx.update(gradients, tx.init(gradients[0]))
        return update, state.task_weights

    return jax.jit(jax.vmap(one))(jnp.asarray(rows))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", [mtl.upgrad, mtl.dualproj, mtl.mgda])
@pytest.mark.rounded
@pytest.mark.slow
def test_no_task_is_harmed_beyond_rounding(method, dtype):
    around = np.random.default_rng(195).standard_normal((1, 20, 10))
    rows = np.concatenate([around, problems(20, 10, 600)]).astype(dtype)
    with jax.enable_x64(dtype is np.float64):
        update, weights = (np.asarray(x, float) for x in updates_of(method, rows))
    # These rows surround 0, so that no other update harms none of them.
    assert not update[0].any()
    rows = rows.astype(float)
    norms = np.linalg.norm(rows, axis=-1)
    slopes = np.einsum("bti,bi->bt", rows, update)
    terms = np.sum(weights * norms, -1)[:, None]
    assert (slopes >= -16 * EPS[dtype] * norms * terms).all()
    length = np.linalg.norm(update, axis=-1)[:, None]
    long = length >= 0.2 * terms
    assert (slopes >= np.where(long, -1e-5, -1) * norms * length).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.rounded
def test_two_opposite_gradients_leave_nothing_of_a_third(dtype):
    rows = np.array([[[-2, 1], [2, -1], [-1, 1]]], dtype)
    with jax.enable_x64(dtype is np.float64):
        assert not updates_of(mtl.mgda, rows)[0].any()
