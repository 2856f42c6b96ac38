"""The T x T solvers under abuse and transformations, in any dtype, on any platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import (
    CAGRAD,
    FAMILIES,
    MIN_NORM,
    NASH,
    ONE,
    PROJECT,
    over_dtypes,
    rows_of,
)

from mtl_optax.core.solvers import cagrad_solver, linalg, nash_solver
from mtl_optax.core.solvers.dual_cone import project_dual_cone
from mtl_optax.core.solvers.min_norm import in_hull, min_norm_weights
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def every_solver(gramian, preference, c, alpha, active):
    """All public solvers in one computation."""
    return {
        "cosine": linalg.cosine_matrix(gramian),
        "qp": nonnegative_qp(gramian, -preference),
        "project": project_dual_cone(gramian, preference),
        "min_norm": min_norm_weights(gramian, active),
        "in_hull": in_hull(gramian, active),
        "nash": nash_solver.nash_weights(gramian, alpha),
        "cagrad": cagrad_solver.cagrad_weights(gramian, preference, c, active),
        "eigh": linalg.psd_eigh(gramian),
    }


def arguments(gramian, dtype=np.float32, c=0.5, alpha=1.0):
    num_tasks = gramian.shape[-1]
    preference = np.full(num_tasks, 1 / num_tasks, dtype)
    active = np.ones(num_tasks, bool)
    return np.asarray(gramian, dtype), preference, dtype(c), dtype(alpha), active


def hostile(num_tasks):
    """Rows that break careless solvers, by name."""
    signs = np.where(np.arange(num_tasks) % 2, -1.0, 1.0)[:, None]
    spread = np.logspace(-6, 6, num_tasks)[:, None]
    rows = rows_of("random", num_tasks)
    opposite = signs * rows[:1]
    first_zero = rows * (np.arange(num_tasks) > 0)[:, None]
    angles = np.linspace(0, 2 * np.pi, num_tasks)[:, None]
    circle = np.hstack([np.cos(angles), np.sin(angles)])
    cases = {family: rows_of(family, num_tasks) for family in FAMILIES}
    cases |= {"zero": 0 * rows, "one zero": first_zero, "same": 0 * rows + rows[:1]}
    cases |= {"opposite": opposite, "opposite mixed": opposite * spread}
    cases |= {
        "mixed": rows * spread,
        "circle": circle,
        "zero mixed": first_zero * spread,
    }
    large = {f"{name} x 1e10": 1e10 * x for name, x in cases.items()}
    small = {f"{name} x 1e-10": 1e-10 * x for name, x in cases.items()}
    # Larger ones would no longer have a finite Gramian.
    return {k: x for k, x in (cases | large | small).items() if np.abs(x).max() < 1e17}


@pytest.mark.parametrize("num_tasks", [1, 3, 50])
@pytest.mark.slow
def test_never_nan_and_compiles_once(num_tasks):
    solve = jax.jit(lambda *args: every_solver(*args))  # a cache of its own
    for name, rows in hostile(num_tasks).items():
        with np.errstate(under="ignore"):
            gramian = np.float32(rows) @ np.float32(rows).T
        assert np.isfinite(gramian).all(), name
        for c, alpha in ((0.5, 1.0), (0.0, 0.3), (1e3, 10.0)):
            result = solve(*arguments(gramian, c=c, alpha=alpha))
            for key, value in result.items():
                for leaf in jax.tree.leaves(value):
                    assert np.isfinite(leaf).all(), (name, key, c, alpha)
    assert solve._cache_size() == 1


@pytest.mark.slow
def test_vmap_equals_loop():
    """Over every argument; lanes need different numbers of steps."""

    def solve(*args):
        gramian, preference, c, alpha, active = args
        return {
            "project": project_dual_cone(gramian, preference),
            "min_norm": min_norm_weights(gramian, active),
            "nash": nash_solver.nash_weights(gramian, alpha),
            "cagrad": cagrad_solver.cagrad_weights(gramian, preference, c, active),
        }

    rows = [rows_of(family, 10, seed=3) for family in ("random", "dup", "scales")]
    inputs = [
        arguments(r @ r.T, c=c, alpha=alpha)
        for r, c, alpha in zip(rows, (0.1, 0.5, 2.0), (0.5, 1.0, 2.0), strict=True)
    ]
    batched = jax.jit(jax.vmap(solve))(*map(np.stack, zip(*inputs, strict=True)))
    for i, (gramian, preference, c, alpha, active) in enumerate(inputs):
        alone = {
            "project": PROJECT(gramian, preference[None])[0],
            "min_norm": MIN_NORM(gramian, active),
            "nash": NASH(gramian, alpha),
            "cagrad": CAGRAD(gramian, preference, c, active),
        }
        for key, value in alone.items():
            np.testing.assert_allclose(batched[key][i], value, rtol=2e-5, err_msg=key)


def test_scan_equals_loop():
    rows = np.stack([rows_of("dup", 3, seed) for seed in range(3)])
    gramians = np.float32(rows @ rows.swapaxes(1, 2))

    def step(total, gramian):
        weights = nash_solver.nash_weights(gramian)
        return total + weights, weights

    _, scanned = jax.lax.scan(step, jnp.zeros(3), gramians)
    alone = np.stack([NASH(gramian, ONE) for gramian in gramians])
    np.testing.assert_allclose(scanned, alone, rtol=1e-6)


@pytest.mark.parametrize("family", ["random", "conflict"])
def test_row_scales_do_not_matter(family):
    """`norms * weights` stays; powers of two, so that the Gramian's digits do too."""
    rows = np.float32(rows_of(family, 10))
    gramian = rows @ rows.T
    scale = np.float32(2.0) ** np.array([-20, 20, 7, -13, 0, 3, -3, 17, -9, 1])
    scaled = gramian * scale[:, None] * scale[None, :]
    weights = np.full((1, 10), 0.1, np.float32)
    before, after = PROJECT(gramian, weights), PROJECT(scaled, weights / scale)
    np.testing.assert_allclose(np.asarray(after) * scale, before, rtol=1e-5)
    np.testing.assert_allclose(NASH(scaled, ONE) * scale, NASH(gramian, ONE), rtol=1e-5)


def test_decimal_row_scales_do_not_matter():
    rows = rows_of("random", 10)
    scale = np.logspace(-6, 6, 10)
    gramian, scaled = (np.float32(r @ r.T) for r in (rows, rows * scale[:, None]))
    weights = np.full((1, 10), 0.1)
    before = PROJECT(gramian, np.float32(weights))
    after = PROJECT(scaled, np.float32(weights / scale))
    np.testing.assert_allclose(np.asarray(after) * scale, before, rtol=1e-5)
    np.testing.assert_allclose(NASH(scaled, ONE) * scale, NASH(gramian, ONE), rtol=1e-5)


def equations(jaxpr):
    """Those of a jaxpr and of every jaxpr inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_products_in_full_precision_and_no_callbacks():
    rows = rows_of("random", 4)
    jaxpr = jax.make_jaxpr(every_solver)(*arguments(rows @ rows.T)).jaxpr
    found = list(equations(jaxpr))
    names = {equation.primitive.name for equation in found}
    products = [e for e in found if e.primitive.name == "dot_general"]
    highest = jax.lax.Precision.HIGHEST
    assert {"while", "cholesky", "eigh"} <= names
    assert len(products) > 20
    assert not any("callback" in name for name in names)
    for equation in products:
        assert equation.params["precision"] == (highest, highest), equation


def test_lowers_for_every_platform():
    rows = rows_of("random", 3)
    traced = jax.jit(every_solver).trace(*arguments(rows @ rows.T))
    for platform in ("cpu", "cuda", "tpu"):
        assert traced.lower(lowering_platforms=(platform,)).as_text(), platform


@over_dtypes
def test_keeps_dtype(dtype):
    rows = rows_of("random", 2)
    with jax.enable_x64(dtype is np.float64):
        call = functools.partial(jax.eval_shape, every_solver)
        for leaf in jax.tree.leaves(call(*arguments(rows @ rows.T, dtype))):
            assert leaf.dtype in (dtype, bool)
