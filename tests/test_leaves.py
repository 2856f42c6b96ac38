"""`leaves=`: the Gramian over some leaves, the weights on all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_losses import linear_losses

import mtl_optax as mtl

T = 3
SIZES = {"trunk": {"w": (4, 3), "b": (3,)}, "last": (3, 3), "heads": (5,)}
PARAMS = jax.tree.map(jnp.zeros, SIZES, is_leaf=lambda x: isinstance(x, tuple))
MASKS = {
    "tree": {"trunk": {"w": False, "b": False}, "last": True, "heads": False},
    "prefix": {"trunk": False, "last": True, "heads": False},
    "function": lambda tree: {key: key == "last" for key in tree},
}


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal((T, *p.shape)), jnp.float32), PARAMS
    )


def lazily(stacked):
    """The same gradients, of losses that are linear."""
    return mtl.lazy_task_grads(linear_losses)(PARAMS, stacked, jnp.ones(T))[1]


def step(tx, lazy, stacked, **extras):
    def update(stacked, extras):
        given = lazily(stacked) if lazy else stacked
        return tx.update(given, tx.init(PARAMS), PARAMS, **extras)

    return jax.jit(update)(stacked, extras)


def over(leaves, weighting=None):
    weighting = weighting or mtl.mgda.weighting()
    return mtl.from_weighting(weighting, T, leaves=leaves)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", MASKS)
@pytest.mark.slow
def test_the_gramian_is_that_of_the_chosen_leaves(form, lazy):
    stacked = gradients()
    update, state = step(over(MASKS[form]), lazy, stacked)
    _, alone = step(mtl.mgda(T), False, {**zeros(stacked), "last": stacked["last"]})
    np.testing.assert_allclose(state.task_gramian, alone.task_gramian, rtol=1e-5)
    np.testing.assert_allclose(state.task_weights, alone.task_weights, rtol=1e-4)
    wanted = mtl.combine(stacked, alone.task_weights)
    for got, leaf in zip(*map(jax.tree.leaves, (update, wanted)), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-4, atol=1e-5)


def zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_missing_task_stays_apart(lazy):
    active = jnp.array([True, False, True])
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), gradients())
    update, state = step(over(MASKS["prefix"]), lazy, broken, active=active)
    clean, same = step(over(MASKS["prefix"]), lazy, gradients(), active=active)
    np.testing.assert_array_equal(state.task_weights, same.task_weights)
    for got, leaf in zip(*map(jax.tree.leaves, (update, clean)), strict=True):
        np.testing.assert_array_equal(got, leaf)


@pytest.mark.parametrize("lazy", [False, True])
def test_gradients_that_cancel_on_the_chosen_leaves_still_move_the_others(lazy):
    stacked = gradients()
    opposite = jnp.stack(
        [stacked["last"][0], -stacked["last"][0], 0 * stacked["last"][0]]
    )
    tx = over(MASKS["prefix"], mtl.mean.weighting()._replace(uses_gramian=True))
    update, _ = step(tx, lazy, {**stacked, "last": opposite})
    wanted = jnp.mean(stacked["heads"], axis=0)
    np.testing.assert_allclose(update["heads"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(update["last"], 0, atol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_beside_on_shared(lazy):
    """There the method sees some leaves, and takes norms on some of those."""
    shared = {"trunk": True, "last": True, "heads": False}
    tx = mtl.on_shared(over(MASKS["prefix"]), shared)
    stacked = gradients()
    update, state = step(tx, lazy, stacked)
    _, alone = step(over(MASKS["prefix"]), False, stacked)
    np.testing.assert_allclose(state.task_weights, alone.task_weights, rtol=1e-4)
    wanted = jnp.sum(stacked["heads"], axis=0)
    np.testing.assert_allclose(update["heads"], wanted, rtol=1e-5, atol=1e-6)


def test_gradnorm_takes_norms_on_the_chosen_leaves():
    tx = mtl.gradnorm(T, alpha=0.0, leaves=MASKS["function"], optimizer=optax.sgd(0.01))
    stacked, state = gradients(), tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(stacked, state, PARAMS, losses=jnp.ones(T))
    norms = jnp.sqrt(jnp.sum(stacked["last"] ** 2, axis=(1, 2)))
    values = 1 - 0.01 * jnp.sign(norms - jnp.mean(norms)) * norms
    np.testing.assert_allclose(state.task_weights, values / jnp.mean(values), rtol=1e-5)


@pytest.mark.optimized
@pytest.mark.slow
def test_lazy_gradients_pass_back_to_the_chosen_leaves_only():
    """A deep trunk: T passes through the last layer, and one through all."""
    params = [jnp.eye(64) * 1.1 for _ in range(8)]

    def deep(params):
        h = jnp.ones((32, 64))
        for w in params:
            h = jnp.tanh(h @ w)
        return tuple(jnp.mean((h[:, t::8] - t) ** 2) for t in range(8))

    def flops(leaves):
        weighting = mtl.imtl_g.weighting()
        tx = mtl.from_weighting(weighting, 8, leaves=leaves)

        def update(params):
            _, lazy = mtl.lazy_task_grads(deep)(params)
            return tx.update(lazy, tx.init(params), params)

        return jax.jit(update).lower(params).compile().cost_analysis()["flops"]

    last = [False] * 7 + [True]
    assert flops(last) < 0.5 * flops(None)


def test_no_leaf_or_leaves_of_their_own():
    none = {"trunk": False, "last": False, "heads": False}
    with pytest.raises(ValueError, match="names no leaf to take the Gramian over"):
        over(none).init(PARAMS)
    with pytest.raises(ValueError, match="there is none for the leaves that leaves="):
        mtl.from_weighting(
            mtl.mgda.weighting(),
            T,
            granularity="leaf",
            leaves=MASKS["tree"],
        )
