"""Gaussian layers, divergences, and the weights and priors of VMTL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import BayesLinear
from mtl_optax.nn.bayes_linear import Gaussian, gaussian_kl
from mtl_optax.nn.gumbel_prior import gumbel_weights, prior_kl, weighted_sum


def gaussian(mean, var):
    return Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(var, jnp.float32))


Q = gaussian([0.5, -1.0], [0.3, 2.0])
P = gaussian([0.0, 1.0], [1.0, 0.7])


def log_density(x, gaussian):
    mean, var = map(np.asarray, gaussian)
    square = (x - mean[None]) ** 2 / var[None]
    return -0.5 * (np.log(2 * np.pi * var[None]) + square).sum(axis=1)


def test_divergence_is_that_of_a_million_samples():
    mean, var = map(np.asarray, Q)
    noise = np.random.default_rng(0).normal(size=(1_000_000, 2))
    x = mean[None] + np.sqrt(var)[None] * noise
    sampled = np.mean(log_density(x, Q) - log_density(x, P))
    np.testing.assert_allclose(gaussian_kl(Q, P), sampled, rtol=0.005)
    assert gaussian_kl(Q, Q) == 0


def test_moments_are_those_of_sampled_weights():
    layer = BayesLinear(3, 2, rngs=nnx.Rngs(0))
    for part in (layer.weights, layer.bias):
        part.raw_scale[...] = part.raw_scale[...] + 3  # not all variance from rounding
    x = jnp.array([0.5, -2.0, 1.0])
    mean, var = layer(x)
    rng = np.random.default_rng(1)
    draws = [
        np.asarray(m)[None] + np.sqrt(v)[None] * rng.normal(size=(100_000, *m.shape))
        for m, v in (layer.weights(), layer.bias())
    ]
    y = np.einsum("i,nij->nj", x, draws[0]) + draws[1]
    np.testing.assert_allclose(y.mean(axis=0), mean, atol=5 * y.std() / 100_000**0.5)
    np.testing.assert_allclose(y.var(axis=0), var, rtol=0.03)


def test_weights_are_near_one_hot_or_uniform_and_sum_to_one():
    def many(tau):
        logits = jnp.array([0.0, 1.0, -1.0])
        keys = jax.random.split(jax.random.key(0), 200)
        draws = jax.vmap(lambda key: gumbel_weights(logits, tau, key))(keys)
        slope = jax.grad(lambda x: gumbel_weights(x, tau, keys[0])[0])(logits)
        return draws, slope

    draw = jax.jit(many)
    for tau in (0.01, 1.0, 1000.0):
        draws, slope = draw(tau)
        np.testing.assert_allclose(draws.sum(axis=1), 1, rtol=1e-5)
        assert np.all(np.isfinite(slope))
        if tau == 0.01:
            assert np.median(draws.max(axis=1)) > 0.999
            picks = np.bincount(draws.argmax(axis=1), minlength=3) / 200
            np.testing.assert_allclose(picks, [0.245, 0.665, 0.090], atol=0.12)
        if tau == 1.0:
            assert np.all(slope != 0)
        if tau == 1000.0:
            np.testing.assert_allclose(draws, 1 / 3, atol=0.01)


def test_the_sum_of_others_is_the_law_of_a_sum():
    others = gaussian([[0.0], [2.0]], [[1.0], [4.0]])
    mean, var = weighted_sum(jnp.array([0.25, 0.75]), others)
    assert (mean, var) == (1.5, 2.3125)


def test_divergence_from_a_mixture_is_bounded_from_above():
    others = gaussian([[0.0, 1.0], [1.0, -1.0]], [[1.0, 0.7], [0.5, 1.5]])
    weights = jnp.array([0.25, 0.75])
    bound = prior_kl(Q, others, weights, "mixture")
    one_by_one = [gaussian_kl(Q, Gaussian(*(m[i] for m in others))) for i in (0, 1)]
    np.testing.assert_allclose(bound, weights @ jnp.stack(one_by_one), rtol=1e-5)
    x = np.asarray(Q.mean)[None] + np.sqrt(Q.var)[None] * np.random.default_rng(
        0
    ).normal(size=(100_000, 2))
    each = [log_density(x, Gaussian(*(m[i] for m in others))) for i in (0, 1)]
    density = 0.25 * np.exp(each[0]) + 0.75 * np.exp(each[1])
    assert 0.1 < np.mean(log_density(x, Q) - np.log(density)) < bound


@pytest.mark.parametrize("prior", ["sum", "mixture"])
def test_no_gradient_goes_to_the_others(prior):
    others = gaussian([[0.0, 1.0], [1.0, -1.0]], [[1.0, 0.7], [0.5, 1.5]])
    of = jax.jit(jax.grad(lambda o, a: prior_kl(Q, o, a, prior), argnums=(0, 1)))
    to_others, to_weights = of(others, jnp.array([0.25, 0.75]))
    assert all(np.all(leaf == 0) for leaf in to_others)
    assert np.all(to_weights != 0)
