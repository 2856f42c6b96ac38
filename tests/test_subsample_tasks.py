"""subsample_tasks: fewer pull-backs, the same mean."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wrapper_runs import PARAMS, batch

import mtl_optax as mtl

MANY = 6


def many_losses(params, x):
    h = jnp.tanh(x @ params["w"]) + params["b"][None, :]
    return {f"t{t}": jnp.mean((h[:, t % 2] - t) ** 2) for t in range(MANY)}


def cagrad_fast(n):
    """One update with n pull-backs."""
    _, prior = mtl.subsample_tasks(jax.random.key(0), jnp.ones(MANY), n)
    tx = mtl.cagrad(n, preference=prior)

    def update(key, params, x):
        def few(params):
            return mtl.subsample_tasks(key, many_losses(params, x), n)[0]

        _, grads = mtl.lazy_task_grads(few)(params)
        return tx.update(grads, tx.init(params), params)[0]

    return update


@pytest.mark.slow
def test_subsampling_all_tasks_is_plain_cagrad():
    x, tx = batch(0), mtl.cagrad(MANY)
    _, grads = mtl.task_grads(many_losses)(PARAMS, x)
    expected, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    got = cagrad_fast(MANY)(jax.random.key(3), PARAMS, x)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_subsampled_losses_keep_the_mean(n):
    losses = jnp.arange(1.0, MANY + 1)
    few, prior = mtl.subsample_tasks(jax.random.key(5), losses, n)
    np.testing.assert_allclose(jnp.sum(prior * jnp.stack(few)), 3.5, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(prior), 1, rtol=1e-6)


@pytest.mark.optimized
@pytest.mark.slow
def test_subsampling_runs_fewer_pull_backs():
    key, x = jax.random.key(0), jnp.ones((64, 256))
    params = {"w": jnp.ones((256, 2)), "b": jnp.zeros(2)}

    def flops(n):
        lowered = jax.jit(cagrad_fast(n)).lower(key, params, x)
        return lowered.compile().cost_analysis()["flops"]

    assert flops(2) < 0.65 * flops(MANY)


@pytest.mark.parametrize("n", [0, MANY + 1])
def test_subsampling_too_few_or_too_many(n):
    with pytest.raises(ValueError, match="n must be at"):
        mtl.subsample_tasks(jax.random.key(0), jnp.ones(MANY), n)
