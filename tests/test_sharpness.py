"""Sharpness against quadratics, whose maximum in a ball is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from mtl_optax.analysis.sharpness import sharpness

RNG = np.random.default_rng(0)


def highest(curvature, slope, radius):
    """Of slope.x + x.diag(curvature).x / 2 in the ball, by the secular equation."""

    def excess(multiplier):
        return np.linalg.norm(slope / (multiplier - curvature)) - radius

    low = curvature.max() + 1e-9
    point = slope / (brentq(excess, low, low + 1e6) - curvature)
    return slope @ point + point @ (curvature * point) / 2


@pytest.mark.parametrize("lowest", [0.1, -5.0], ids=["convex", "saddle"])
def test_quadratic(lowest):
    curvature, slope = np.linspace(lowest, 10, 20), RNG.normal(size=20)
    truth = highest(curvature, slope, 0.5)

    def loss(w):
        w = jnp.concatenate([w["a"], w["b"].ravel()])
        return 3 + jnp.asarray(slope) @ w + w @ (jnp.asarray(curvature) * w) / 2

    params = {"a": jnp.zeros(8), "b": jnp.zeros((3, 4))}
    one, some, many = (
        float(sharpness(loss, params, 0.5, num_steps=n)) for n in (1, 10, 99)
    )
    assert one < some < many < truth * (1 + 1e-5)
    assert some > 0.98 * truth
    assert many > 0.9999 * truth


def test_a_minimum_is_as_sharp_as_its_largest_curvature():
    rotate, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
    matrix = jnp.asarray(rotate @ np.diag([8.0, 4, 2, 1, 1]) @ rotate.T)
    found = sharpness(lambda w: w @ matrix @ w / 2, jnp.zeros(5), 0.1, num_steps=20)
    np.testing.assert_allclose(found, 8 * 0.1**2 / 2, rtol=1e-3)


def test_never_below_zero_and_zero_without_a_ball_or_a_slope():
    top = lambda w: -jnp.sum(w**2)  # noqa: E731
    point = jnp.zeros(3)
    assert sharpness(top, point, 0.1) == 0
    assert sharpness(lambda w: jnp.sum(w), point, 0.0) == 0
    assert sharpness(lambda w: 0 * jnp.sum(w) + 1, point, 0.1) == 0


def test_radius_may_be_a_tracer_and_lanes_are_apart():
    params, radii = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([0.1, 0.2])
    loss = lambda w: jnp.sum(w**2) / 2  # noqa: E731
    found = jax.jit(jax.vmap(lambda w, r: sharpness(loss, w, r)))(params, radii)
    size = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(found, size * radii + radii**2 / 2, rtol=1e-5)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        sharpness(jnp.sum, jnp.zeros(2), 0.1, num_steps=0)
    with pytest.raises(ValueError, match="radius must be at least 0"):
        sharpness(jnp.sum, jnp.zeros(2), -0.1)
