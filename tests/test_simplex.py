"""The projection on the simplex of the active tasks, against an oracle in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.core.solvers.simplex import project_simplex


def simplex_oracle(point):
    """Bisection on the level below which weights are 0, in float64."""
    low, high = point.max() - 1, point.max()
    for _ in range(200):
        level = (low + high) / 2
        over = np.maximum(point - level, 0).sum() > 1
        low, high = (level, high) if over else (low, level)
    return np.maximum(point - low, 0)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_simplex_projection_is_the_nearest_point(num_tasks, size):
    rng = np.random.default_rng(num_tasks)
    for _ in range(10):
        point = (size * rng.standard_normal(num_tasks)).astype(np.float32)
        active = rng.uniform(size=num_tasks) < 0.7
        broken = jnp.asarray(np.where(active, point, np.nan))
        got = np.asarray(project_simplex(broken, jnp.asarray(active)), np.float64)
        np.testing.assert_array_equal(got[~active], 0)
        if not active.any():
            continue
        wanted = simplex_oracle(point[active].astype(np.float64))
        np.testing.assert_allclose(got[active], wanted, rtol=0, atol=4e-7)
        assert abs(got.sum() - 1) <= num_tasks * np.finfo(np.float32).eps


def test_simplex_projection_of_far_and_large_entries():
    everyone = jnp.ones(3, bool)
    for point, wanted in {
        (1e8, 1e8 + 8, 0.0): (0, 1, 0),
        (3.0, 3.25, -1e30): (0.375, 0.625, 0),
        (0.0, -np.inf, 0.0): (0.5, 0, 0.5),
    }.items():
        got = project_simplex(jnp.asarray(point, jnp.float32), everyone)
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    nobody = project_simplex(jnp.full(3, jnp.nan), ~everyone)
    np.testing.assert_array_equal(nobody, 0)
