"""Joint SAM through optax.contrib.sam: one perturbation along the aggregated step."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import mtl_optax as mtl

T, RHO, LEARNING_RATE = 2, 0.05, 0.1
PARAMS = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([0.3])}


def two_losses(params):
    w, b = params["w"], params["b"]
    return {"a": jnp.sum((w - 1) ** 4) + b[0] ** 2, "b": jnp.sum((w + 1) ** 2) - b[0]}


stacked = lambda params: mtl.task_grads(two_losses)(params)[1]  # noqa: E731


def by_hand(aggregator, steps):
    """theta <- theta - lr A(G(theta + rho A(G(theta)) / |A(G(theta))|))."""
    params, state = PARAMS, aggregator.init(PARAMS)
    for _ in range(steps):
        ascent, _ = aggregator.update(stacked(params), state, params)
        norm = optax.tree.norm(ascent)
        there = jax.tree.map(lambda p, d, n=norm: p + RHO * d / n, params, ascent)
        descent, _ = aggregator.update(stacked(there), state, params)
        params = jax.tree.map(lambda p, d: p - LEARNING_RATE * d, params, descent)
    return params


def sam(aggregator, opaque):
    return optax.contrib.sam(
        optax.chain(aggregator, optax.sgd(LEARNING_RATE)),
        optax.chain(aggregator, optax.contrib.normalize(), optax.sgd(RHO)),
        opaque_mode=opaque,
    )


METHODS = {"unitary": mtl.unitary, "mgda": mtl.mgda, "cagrad": mtl.cagrad}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_opaque_mode_with_stacked_gradients(method):
    aggregator = METHODS[method](T)
    tx = sam(aggregator, opaque=True)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(
            stacked(params), state, params, grad_fn=lambda p, _: stacked(p)
        )
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        params, state = step(params, state)
    chex.assert_trees_all_close(params, by_hand(aggregator, 3), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_transparent_mode_takes_two_updates_a_step(method):
    aggregator = METHODS[method](T)
    tx = sam(aggregator, opaque=False)

    @jax.jit
    def half_step(params, state):
        updates, state = tx.update(stacked(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(6):
        params, state = half_step(params, state)
    chex.assert_trees_all_close(params, by_hand(aggregator, 3), rtol=1e-5)


@pytest.mark.parametrize("opaque", [True, False])
def test_lazy_gradients_bring_the_losses_that_sam_cannot_pass(opaque):
    tx = sam(mtl.uw(T), opaque)
    lazy = lambda params: mtl.lazy_task_grads(two_losses)(params)[1]  # noqa: E731

    @jax.jit
    def update(params, state):
        extra = {"grad_fn": lambda p, _: lazy(p)} if opaque else {}
        return tx.update(lazy(params), state, params, **extra)

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(2):
        updates, state = update(params, state)
        params = optax.apply_updates(params, updates)
    # uw starts at weights 1/2 each, so the first SAM step is that of the half sum.
    expected = by_hand(mtl.constant(T, weights=[0.5, 0.5]), 1)
    if not opaque:
        chex.assert_trees_all_close(params, expected, rtol=1e-5)
    else:
        assert optax.tree.norm(jax.tree.map(jnp.subtract, params, PARAMS)) > 0
    assert jnp.all(mtl.task_weights(opaque_inner(state)) > 0)


def opaque_inner(state):
    return state.opt_state


@pytest.mark.parametrize("opaque", [True, False])
def test_random_method_with_raw_key_survives_the_mixing_of_states(opaque):
    aggregator = mtl.pcgrad(T, key=0)
    tx = sam(aggregator, opaque)
    extra = {"grad_fn": lambda p, _: stacked(p)} if opaque else {}
    updates, _ = tx.update(stacked(PARAMS), tx.init(PARAMS), PARAMS, **extra)
    chex.assert_tree_all_finite(updates)
