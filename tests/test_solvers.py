"""The T x T solvers against exact oracles and their own optimality conditions.

Oracles run in float64 on the host: quadprog for the quadratic programs, Clarabel for
CAGrad's cone program. Tolerances are about three times the error measured.
"""

import clarabel
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadprog
import scipy.sparse
from solver_problems import (
    CAGRAD,
    CONIC,
    DTYPES,
    EPS,
    FAMILIES,
    IN_HULL,
    MIN_NORM,
    NASH,
    PROJECT,
    SIZES,
    cosine,
    everyone,
    gramians,
    is_stationary,
    over_dtypes,
    over_sizes,
    rows_of,
)

from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.jacobi import jacobi_eigh


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def qp_oracle(matrix, linear):
    eye = np.eye(len(linear))
    return quadprog.solve_qp(matrix + 1e-13 * eye, -linear, eye, 0 * linear)[0]


def min_norm_oracle(gramian):
    """By the reduction: scale invariant, unlike a simplex constraint."""
    cosines, norms = cosine(gramian)
    inverse = norms.min() / norms
    matrix = cosines + np.outer(inverse, inverse)
    weights = np.maximum(qp_oracle(matrix, -inverse), 0) * inverse
    return weights / weights.sum()


def in_few_columns(rows):
    """The same inner products over the square of a scale, and the scale."""
    scale = np.linalg.norm(rows)
    left, values, _ = np.linalg.svd(rows / scale, full_matrices=False)
    return left * values, scale


def cagrad_oracle(rows, preference, c):
    """The largest t with `<g_i, d> >= t` for all i and `|d - g0| <= c |g0|`."""
    rows, scale = in_few_columns(rows)
    centre = preference @ rows
    radius = c * np.linalg.norm(centre)
    sides = np.zeros((0, rows.shape[1])), np.zeros(0)
    return highest_level(rows, *sides, centre, radius) * scale**2


def conic_oracle(rows, preference, cosine):
    """The same within `|d| <= |g0|` and `<d, g0> >= cosine |g0|^2`."""
    rows, scale = in_few_columns(rows)
    mean = preference @ rows
    length = np.linalg.norm(mean)
    sides = mean[None] / length, np.array([cosine * length])
    return highest_level(rows, *sides, np.zeros_like(mean), length) * scale**2


def highest_level(rows, sides, least, centre, radius):
    """The largest t: `rows d >= t`, `sides d >= least`, `|d - centre| <= radius`."""
    num_tasks, rank = rows.shape
    linear = num_tasks + len(sides)
    constraints = np.zeros((linear + 1 + rank, rank + 1))
    constraints[:linear, :rank] = -np.concatenate([rows, sides])
    constraints[:num_tasks, -1] = 1
    constraints[linear + 1 :, :rank] = -np.eye(rank)
    bound = np.concatenate([np.zeros(num_tasks), -least, [radius], -centre])
    cones = [clarabel.NonnegativeConeT(linear), clarabel.SecondOrderConeT(rank + 1)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
    objective = np.append(np.zeros(rank), -1.0)
    problem = (scipy.sparse.csc_matrix((rank + 1, rank + 1)), objective)
    problem += (scipy.sparse.csc_matrix(constraints), bound, cones, settings)
    return clarabel.DefaultSolver(*problem).solve().x[-1]


@over_sizes
@over_dtypes
@pytest.mark.slow
def test_projection_matches_quadprog(num_tasks, dtype):
    """Of each unit vector (UPGrad) and of the mean, for unit rows (DualProj)."""
    tolerance = {np.float32: 1.5e-10, np.float64: 1e-14}[dtype]
    for family in FAMILIES:
        rows = rows_of(family, num_tasks)
        gramian, exact = gramians(rows, dtype)
        cosines, norms = cosine(exact)
        unit = np.vstack([np.eye(num_tasks), np.full((1, num_tasks), 1 / num_tasks)])
        weights = np.asarray(unit / norms, dtype)
        with jax.enable_x64(dtype is np.float64):
            got = np.asarray(PROJECT(gramian, weights), np.float64)
        assert (got >= weights).all(), family
        for u, v in zip(weights, got, strict=True):
            linear = cosines @ (norms * u)
            scale = np.abs(linear).max()
            ours, best = norms * (v - u) / scale, qp_oracle(cosines, linear / scale)
            value, least = (
                0.5 * y @ cosines @ y + y @ linear / scale for y in (ours, best)
            )
            assert abs(value - least) <= tolerance, (family, value - least)
            # KKT: no conflict, and no lift along a row that is not touched.
            slope = cosines @ (norms * v) / scale
            kkt = np.abs(np.minimum(ours, slope)).max()
            assert kkt <= 15 * num_tasks * EPS[dtype], (family, kkt)


@over_sizes
@over_dtypes
@pytest.mark.optimized
@pytest.mark.slow
def test_min_norm_matches_quadprog(num_tasks, dtype):
    relative = {np.float32: 1e-6, np.float64: 1e-12}[dtype]
    for family in FAMILIES:
        rows = rows_of(family, num_tasks)
        gramian, exact = gramians(rows, dtype)
        active = everyone(num_tasks)
        with jax.enable_x64(dtype is np.float64):
            weights = np.asarray(MIN_NORM(gramian, active), np.float64)
            stationary = bool(IN_HULL(gramian, active))
        best = min_norm_oracle(exact)
        ours, least = weights @ exact @ weights, best @ exact @ best
        size = np.trace(exact) / num_tasks**2
        assert (weights >= 0).all(), family
        assert abs(weights.sum() - 1) <= 4 * EPS[dtype], family
        assert abs(ours - least) <= 4 * EPS[dtype] * size, (family, ours - least)
        assert stationary == is_stationary(family, num_tasks), family
        if not stationary:
            assert abs(ours / least - 1) <= relative, (family, ours / least - 1)
            # KKT: every row reaches at least as far along the min-norm point.
            short = (ours - exact @ weights).max() / (np.abs(exact) @ weights).max()
            assert short <= 4 * EPS[dtype], (family, short)


@over_sizes
@over_dtypes
def test_nash_solves_its_equation(num_tasks, dtype):
    """`a_i (G a)_i = 1`; cancellation in `G a` limits the conflicting family."""
    for family in FAMILIES:
        rows = rows_of(family, num_tasks)
        gramian, _ = gramians(rows, dtype)
        with jax.enable_x64(dtype is np.float64):
            got = np.asarray(NASH(gramian, dtype(1)), np.float64)
        assert np.isfinite(got).all(), family
        if not is_stationary(family, num_tasks):
            seen = gramian.astype(np.float64)
            residual = np.abs(got * (seen @ got) - 1).max()
            limit = (3e4 if family == "conflict" else 20) * EPS[dtype]
            assert (got > 0).all(), family
            assert residual <= limit, (family, residual)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 2.0, 10.0])
@over_dtypes
def test_alpha_fairness_solves_its_equation(alpha, dtype):
    for num_tasks in (3, 10):
        for family in ("random", "conflict", "dup"):
            rows = rows_of(family, num_tasks)
            gramian, _ = gramians(rows, dtype)
            with jax.enable_x64(dtype is np.float64):
                got = np.asarray(NASH(gramian, dtype(alpha)), np.float64)
            seen = gramian.astype(np.float64)
            residual = np.abs((seen @ got) * got ** (1 / alpha) - 1).max()
            limit = (3e4 if family == "conflict" else 20) * EPS[dtype]
            assert residual <= limit, (family, num_tasks, residual)


def test_alpha_fairness_with_rows_of_different_size():
    """Over six decades, some weights need the logarithms to be found at all."""
    rows = rows_of("scales", 10)
    gramian = rows @ rows.T
    for alpha in (0.5, 2.0, 5.0, 10.0):
        with jax.enable_x64(True):
            got = np.asarray(NASH(gramian, np.float64(alpha)))
        residual = np.abs((gramian @ got) * got ** (1 / alpha) - 1).max()
        assert residual <= 1e-11, (alpha, residual)


@over_sizes
@over_dtypes
@pytest.mark.slow
def test_cagrad_matches_clarabel(num_tasks, dtype):
    """The level reached, relative to the rows' and the ball's size.

    Clarabel stops early at very different rows. So the bound that any simplex weights
    give, here those found, certifies the optimum besides.
    """
    tolerance = {np.float32: 3e-7, np.float64: 1.5e-15}[dtype]
    oracle = {np.float32: 3e-7, np.float64: 4e-10}[dtype]
    preference = np.full(num_tasks, 1 / num_tasks)
    for family in FAMILIES:
        rows = rows_of(family, num_tasks)
        gramian, exact = gramians(rows, dtype)
        radius = np.sqrt(preference @ exact @ preference)
        size = np.trace(exact) / num_tasks
        for c in (0.5, 10.0):
            args = gramian, preference.astype(dtype), dtype(c), everyone(num_tasks)
            with jax.enable_x64(dtype is np.float64):
                got = np.asarray(CAGRAD(*args), np.float64)
            lift = got - preference.astype(dtype)
            distance = np.sqrt(max(lift @ exact @ lift, 0))
            level = (exact @ got).min()
            gap = (cagrad_oracle(rows, preference, c) - level) / size / max(c, 1)
            assert (lift >= 0).all(), family
            assert distance <= (1 + 1e3 * EPS[dtype]) * c * radius, (family, c)
            assert abs(gap) <= oracle, (family, c, gap)
            if distance > 0.999 * c * radius:  # not inside, at a stationary point
                simplex = lift / lift.sum()
                bound = simplex @ exact @ preference
                bound += c * radius * np.sqrt(max(simplex @ exact @ simplex, 0))
                certified = (bound - level) / size / max(c, 1)
                assert certified <= tolerance, (family, c, certified)


@pytest.mark.parametrize("num_tasks", [3, 10, 50])
@over_dtypes
@pytest.mark.slow
def test_conic_matches_clarabel(num_tasks, dtype):
    """The gain of the worst task, where the cone binds, where not, and in the hull."""
    oracle = {np.float32: 1e-5, np.float64: 1e-8}[dtype]
    # Norms and angles of what nearly cancels, in float32, are known to its roundings.
    inside = {np.float32: 3e-4, np.float64: 1e-9}[dtype]
    preference = np.full(num_tasks, 1 / num_tasks)
    for family in FAMILIES:
        rows = rows_of(family, num_tasks)
        gramian, exact = gramians(rows, dtype)
        square = preference @ exact @ preference
        size = np.trace(exact) / num_tasks
        for limit in (0.0, 0.3, 0.8, 0.99):
            args = gramian, preference.astype(dtype), dtype(limit), everyone(num_tasks)
            with jax.enable_x64(dtype is np.float64):
                got = np.asarray(CONIC(*args), np.float64)
            gap = conic_oracle(rows, preference, limit) - (exact @ got).min()
            assert abs(gap) / size <= oracle, (family, limit, gap / size)
            assert got @ exact @ got <= (1 + inside) * square, (family, limit)
            way = preference @ exact @ got / square
            assert way >= limit - inside, (family, limit, way)


def test_cagrad_limits():
    """c = 0 gives g0 exactly; a large ball gives the direction of MGDA."""
    rows = rows_of("random", 3)
    with jax.enable_x64(True):
        preference = np.array([0.5, 0.3, 0.2])
        still = CAGRAD(rows @ rows.T, preference, np.float64(0), everyone(3))
        far = np.asarray(
            CAGRAD(rows @ rows.T, preference, np.float64(1e8), everyone(3))
        )
        short = np.asarray(MIN_NORM(rows @ rows.T, everyone(3)))
    np.testing.assert_array_equal(still, preference)
    np.testing.assert_allclose(far / far.sum(), short, atol=1e-7)


def test_cagrad_at_a_stationary_point():
    """Opposite rows: the nearest direction to g0 across both, if the ball has it."""
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 3.0]])
    preference = np.full(3, 1 / 3)
    with jax.enable_x64(True):
        inside = np.asarray(
            CAGRAD(rows @ rows.T, preference, np.float64(0.9), everyone(3))
        )
        outside = np.asarray(
            CAGRAD(rows @ rows.T, preference, np.float64(0.5), everyone(3))
        )
    np.testing.assert_allclose(inside @ rows, [0, 1], atol=1e-12)
    # Only the part along the opposite rows is shortened, as far as the ball goes.
    np.testing.assert_allclose(outside @ rows, [1 - 0.5 * 2**0.5, 1], atol=1e-12)


@over_dtypes
def test_inactive_rows_do_not_count(dtype):
    rows = rows_of("conflict", 10)
    active = np.isin(np.arange(10), (1, 4, 8))
    full, part = (r @ r.T for r in (rows, rows[active]))
    preference = np.linspace(1, 2, 10).astype(dtype)
    full, part = full.astype(dtype), part.astype(dtype)
    some = preference[active]
    with jax.enable_x64(dtype is np.float64):
        pairs = (
            (MIN_NORM(full, active), MIN_NORM(part, everyone(3))),
            (
                CAGRAD(full, preference, dtype(0.5), active),
                CAGRAD(part, some, dtype(0.5), everyone(3)),
            ),
        )
    for got, alone in pairs:
        got = np.asarray(got)
        assert (got[~active] == 0).all()
        np.testing.assert_allclose(got[active], alone, rtol=1e2 * EPS[dtype])


def test_min_norm_with_zero_rows():
    gramian = np.diag(np.float32([1, 0, 4, 0, 0, 1, 1, 1, 1, 1]))
    active = np.arange(10) != 4
    share = MIN_NORM(gramian, active)
    np.testing.assert_array_equal(share, np.isin(np.arange(10), (1, 3)) / 2)
    np.testing.assert_array_equal(MIN_NORM(gramian, ~everyone(10)), np.zeros(10))


def test_psd_eigh_drops_the_null_space():
    rows = rows_of("lowrank", 10)
    values, vectors, keep = linalg.psd_eigh(np.float32(rows @ rows.T))
    assert int(keep.sum()) == 3
    np.testing.assert_array_equal(values[~keep], 1)
    rebuilt = (vectors * jnp.where(keep, values, 0)[None, :]) @ vectors.T
    np.testing.assert_allclose(rebuilt, rows @ rows.T, rtol=1e-4, atol=1e-3)
    assert not linalg.psd_eigh(jnp.zeros((3, 3)))[2].any()


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.slow
def test_jacobi_finds_each_eigenvalue_to_its_own_precision(num_tasks, dtype):
    """Norms over six decades, where eigh is off by the rounding of the largest."""
    rng = np.random.default_rng(num_tasks)
    rows = rng.standard_normal((num_tasks, 200))
    rows *= np.logspace(-3, 3, num_tasks)[:, None]
    with jax.enable_x64(dtype is np.float64):
        values, vectors = jax.jit(jacobi_eigh)(np.asarray(rows @ rows.T, dtype))
    values, vectors = np.asarray(values, float), np.asarray(vectors, float)
    # Singular values of graded rows are found to relative precision row by row.
    exact = np.sort(np.linalg.svd(rows, compute_uv=False) ** 2)
    slack = 20 * num_tasks * EPS[dtype]
    np.testing.assert_allclose(np.sort(values), exact, rtol=max(slack, 1e-9))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(num_tasks), atol=slack)
    rebuilt = (vectors * values[None, :]) @ vectors.T
    size = np.linalg.norm(rows, axis=1)
    error = (rebuilt - rows @ rows.T) / size[:, None] / size[None, :]
    assert np.abs(error).max() < slack
