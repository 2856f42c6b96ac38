"""`granularity=`: a Gramian, weights and state for each block of leaves."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods import METHODS

import mtl_optax as mtl

T = 3
SHAPES = {
    "q": (4, 2),
    "k": (4, 2),
    "v": (3,),
    "out": (4, 2),
    "in": (4, 2),
    "bias": (3,),
}
PARAMS = jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
# Two blocks of equal shapes, so that a method alone compiles once.
BLOCKS = {"attention": ("k", "q", "v"), "rest": ("in", "out", "bias")}
LABELS = {leaf: label for label, leaves in BLOCKS.items() for leaf in leaves}
FROM_GRAMIAN = [method for method in METHODS if method.family == "gramian"]
ACTIVE = jnp.array([True, False, True])


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal((T, *p.shape)), jnp.float32), PARAMS
    )


def losses_fn(params):
    """Losses that are linear, with the gradients above."""
    stacked = gradients()
    each = [
        sum(jnp.sum(stacked[name][t] * params[name]) for name in params) + 1.0
        for t in range(T)
    ]
    return {f"task{t}": loss for t, loss in enumerate(each)}


def part(tree, label):
    """The leaves of one block under the names of the first, in the same order."""
    return {new: tree[old] for new, old in zip("abc", BLOCKS[label], strict=True)}


@pytest.mark.parametrize("method", FROM_GRAMIAN, ids=lambda method: method.name)
@pytest.mark.slow
def test_each_block_is_solved_by_itself(method):
    extras = method.extras(T, PARAMS)
    blocks = method.make(T, granularity=LABELS)
    alone = method.make(T)

    @jax.jit
    def one(stacked):
        params = jax.tree.map(lambda g: jnp.zeros_like(g[0]), stacked)
        return alone.update(stacked, alone.init(params), params, **extras)

    stacked = gradients()
    update, state = jax.jit(blocks.update)(
        stacked, blocks.init(PARAMS), PARAMS, **extras
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(state, blocks.init(PARAMS))
    # In order of first leaves: "bias" before "k".
    for i, label in enumerate(["rest", "attention"]):
        wanted, same = one(part(stacked, label))
        np.testing.assert_allclose(
            state.task_weights[i], same.task_weights, rtol=1e-4, atol=1e-5
        )
        chex.assert_trees_all_close(part(update, label), wanted, rtol=1e-3, atol=1e-4)


def run(tx, stacked=None, **extras):
    given = gradients() if stacked is None else stacked
    return jax.jit(tx.update)(given, tx.init(PARAMS), PARAMS, **extras)


ONE_LABEL = dict.fromkeys(SHAPES, "all")
EACH_LEAF = {name: name for name in SHAPES}
FORMS = {
    "function": lambda params: LABELS,
    "numbers": {name: int(label == "rest") for name, label in LABELS.items()},
}


@functools.cache
def in_blocks():
    return run(mtl.mgda(T, granularity=LABELS))


@pytest.mark.parametrize("form", FORMS)
def test_labels_come_as_a_function_or_as_any_values(form):
    got = run(mtl.mgda(T, granularity=FORMS[form]))
    chex.assert_trees_all_equal(got, in_blocks())


def test_labels_as_a_prefix():
    nested = {"layer": {"q": jnp.zeros(3), "k": jnp.zeros(3)}, "head": jnp.zeros(2)}
    tx = mtl.mgda(T, granularity={"layer": "layer", "head": "head"})
    assert tx.init(nested).task_weights.shape == (2, T)


@pytest.mark.slow
def test_one_label_is_no_granularity_and_each_leaf_its_own_is_leaf():
    update, state = run(mtl.mgda(T, granularity=ONE_LABEL))
    plain, same = run(mtl.mgda(T))
    chex.assert_trees_all_close(update, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.task_weights[0], same.task_weights, rtol=1e-5)
    leaves = run(mtl.mgda(T, granularity=EACH_LEAF))
    chex.assert_trees_all_equal(leaves, run(mtl.mgda(T, granularity="leaf")))


def test_lazy_gradients_give_the_same_update():
    tx = mtl.mgda(T, granularity=LABELS)

    @jax.jit
    def step(params):
        _, lazy = mtl.lazy_task_grads(losses_fn)(params)
        return tx.update(lazy, tx.init(params), params)

    chex.assert_trees_all_close(step(PARAMS), in_blocks(), rtol=1e-5, atol=1e-5)


def test_a_missing_task_stays_apart_in_every_block():
    tx = mtl.mgda(T, granularity=LABELS)
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), gradients())
    got = run(tx, broken, active=ACTIVE)
    chex.assert_trees_all_equal(got, run(tx, active=ACTIVE))
    np.testing.assert_array_equal(got[1].task_weights[:, 1], 0)


def test_a_given_gramian_is_one_a_block():
    tx = mtl.mgda(T, granularity=LABELS)
    _, state = in_blocks()
    got = run(tx, gramian=state.task_gramian)
    chex.assert_trees_all_close(got, in_blocks(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"gramian= must have shape \(2, 3, 3\)"):
        run(tx, gramian=state.task_gramian[0])


@pytest.mark.parametrize("old", ["precomputed_gramian", "cross_gramian"])
def test_the_old_names_of_a_given_gramian_name_the_new_one(old):
    for tx in (mtl.mgda(T), mtl.modo(T)):
        with pytest.raises(ValueError, match=f"{old}= is now gramian="):
            tx.update(gradients(), tx.init(PARAMS), PARAMS, **{old: jnp.eye(T)})


def test_labels_that_are_not_like_the_parameters():
    with pytest.raises(ValueError, match="granularity"):
        mtl.mgda(T, granularity={"q": "attention"}).init(PARAMS)


@pytest.mark.parametrize("wrong", [True, 3, "leafs", np.array([0, 1])])
def test_what_is_no_granularity(wrong):
    with pytest.raises(ValueError, match="granularity must be one of None"):
        mtl.mgda(T, granularity=wrong)


def test_labels_that_are_arrays():
    labels = {name: jnp.array(0) for name in SHAPES}
    with pytest.raises(ValueError, match="each a string or a number"):
        mtl.mgda(T, granularity=labels).init(PARAMS)


@pytest.mark.parametrize("name", ["unitary", "uw"])
def test_weightings_of_losses_take_blocks_too(name):
    weighting = getattr(mtl, name).weighting()
    losses = jnp.ones(T)
    got, state = run(
        mtl.from_weighting(weighting, T, granularity=LABELS), losses=losses
    )
    wanted, _ = run(getattr(mtl, name)(T), losses=losses)
    assert state.task_weights.shape == (2, T)
    chex.assert_trees_all_close(got, wanted, rtol=1e-6)


@pytest.mark.slow
def test_pcgrad_leaf_by_leaf_is_modular_gradient_surgery():
    """Hand-checked: one leaf conflicts, the whole gradients do not."""
    stacked = {"a": jnp.array([[1.0, 0], [-1, 1]]), "b": jnp.array([[0.0, 1], [0, 2]])}
    params = jax.tree.map(lambda g: g[0], stacked)
    for granularity, first in (("leaf", [0.5, 1.5]), (None, [0.0, 1.0])):
        tx = mtl.pcgrad(2, key=0, granularity=granularity)
        got, _ = tx.update(stacked, tx.init(params), params)
        np.testing.assert_allclose(got["a"], first, atol=1e-6)
        np.testing.assert_allclose(got["b"], [0, 3], atol=1e-6)
