"""The method on shared leaves, the plain sum elsewhere."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl

T = 2
PARAMS = {
    "trunk": {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)},
    "a": jnp.ones(3),
    "z": jnp.ones(3),
}
MASK = {"trunk": {"w": True, "b": True}, "a": False, "z": False}


def losses_fn(params, x):
    h = jnp.tanh(x @ params["trunk"]["w"] + params["trunk"]["b"][None, :])
    first = jnp.mean((h @ params["a"] - 1) ** 2)
    return {"a": first, "z": 30 * jnp.mean((h @ params["z"] + 1) ** 2)}


def gradients(lazy=False):
    x = jax.random.normal(jax.random.key(0), (8, 4))
    transform = mtl.lazy_task_grads if lazy else mtl.task_grads
    return transform(losses_fn)(PARAMS, x)


def run(tx, lazy=False, **extra):
    losses, grads = gradients(lazy)
    return tx.update(grads, tx.init(PARAMS), PARAMS, losses=losses, **extra)


FORMS = {
    "mask": MASK,
    "prefix": {"trunk": True, "a": False, "z": False},
    "callable": lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: "trunk" in jax.tree_util.keystr(path), params
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.contract
def test_equals_partition_with_unitary_heads(form, lazy):
    partition = optax.partition(
        {True: mtl.mgda(T), False: mtl.unitary(T)}, jax.tree.map(bool, MASK)
    )
    expected, _ = run(partition)
    got, _ = run(mtl.on_shared(mtl.mgda(T), FORMS[form]), lazy)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_gramian_sees_shared_leaves_only(lazy):
    _, grads = gradients()
    _, state = run(mtl.on_shared(mtl.cagrad(T), MASK), lazy)
    np.testing.assert_allclose(
        state.task_gramian, mtl.gramian(grads["trunk"]), rtol=1e-5
    )


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("method", [mtl.imtl_g(T), mtl.uw(T)])
def test_rest_weights(lazy, method):
    got, state = run(mtl.on_shared(method, MASK, rest="weights"), lazy)
    weights = mtl.task_weights(state)
    _, grads = gradients()
    assert np.all(weights != 1), "else this could not tell weights from the sum"
    np.testing.assert_allclose(got["a"], weights[0] * grads["a"][0], rtol=1e-5)
    np.testing.assert_allclose(got["z"], weights[1] * grads["z"][1], rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("rest", ["sum", "weights"])
def test_inactive_tasks_do_not_move_their_heads(lazy, rest):
    tx = mtl.on_shared(mtl.cagrad(T), MASK, rest=rest)
    got, _ = run(tx, lazy, active=jnp.array([True, False]))
    assert jnp.any(got["a"] != 0)
    np.testing.assert_array_equal(got["z"], 0)


def test_around_a_chain_and_inside_one():
    around = mtl.on_shared(optax.chain(mtl.mgda(T), optax.scale(2.0)), MASK)
    inside = optax.chain(mtl.on_shared(mtl.mgda(T), MASK), optax.adam(1e-3))
    plain, _ = run(mtl.on_shared(mtl.mgda(T), MASK))
    doubled, _ = run(around)
    np.testing.assert_allclose(
        doubled["trunk"]["w"], 2 * plain["trunk"]["w"], rtol=1e-6
    )
    np.testing.assert_allclose(doubled["a"], plain["a"])
    chex.assert_trees_all_equal_shapes(run(inside)[0], PARAMS)


@pytest.mark.parametrize("shared", [True, False])
def test_all_or_nothing_shared(shared):
    mask = jax.tree.map(lambda _: shared, PARAMS)
    expected, _ = run(mtl.mgda(T) if shared else mtl.unitary(T))
    for lazy in (False, True):
        got, _ = run(mtl.on_shared(mtl.mgda(T), mask), lazy)
        chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-7)


def test_scan_keeps_the_state():
    tx = optax.chain(mtl.on_shared(mtl.pcgrad(T, key=0), MASK), optax.adam(1e-2))
    x = jax.random.normal(jax.random.key(0), (8, 4))

    def step(carry, _):
        params, state = carry
        losses, grads = mtl.lazy_task_grads(losses_fn)(params, x)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), jnp.sum(losses)

    _, losses = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), None, length=100)
    assert losses[-1] < 0.5 * losses[0]


def test_rest_weights_of_a_method_with_weights_per_leaf():
    tx = mtl.on_shared(mtl.pcgrad(T, key=0, granularity="leaf"), MASK, rest="weights")
    with pytest.raises(ValueError, match="no one vector for the rest"):
        run(tx)


def test_rest_leaves_are_guarded_too():
    _, grads = gradients()
    tx = mtl.on_shared(mtl.mgda(T), MASK)
    unstacked = {**grads, "a": grads["a"][0]}
    with pytest.raises(ValueError, match=r"\['a'\] of the task gradients has shape"):
        tx.update(unstacked, tx.init(PARAMS), PARAMS)
