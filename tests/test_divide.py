"""divide: halves of the tasks are combined, and then the two halves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl

PARAMS = {"w": jnp.zeros(4), "b": jnp.zeros(2)}


def stacked(num_tasks, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda p: jnp.asarray(rng.standard_normal((num_tasks, *p.shape)))  # noqa: E731
    return jax.tree.map(draw, PARAMS)


def rows(tree, some):
    return jax.tree.map(lambda g: g[jnp.array(some)], tree)


def step(weighting, grads, num_tasks, **extras):
    tx = mtl.from_weighting(weighting, num_tasks)
    return tx.update(grads, tx.init(PARAMS), PARAMS, **extras)


def pair_by_pair(weighting, grads, losses):
    """The definition, with vectors in place of Gramians: a half's gradient and loss."""
    num_tasks = losses.shape[0]
    if num_tasks == 1:
        return rows(grads, 0), losses[0]
    middle = (num_tasks + 1) // 2
    parts = np.split(np.arange(num_tasks), [middle])
    halves = [
        pair_by_pair(weighting, rows(grads, part), losses[part]) for part in parts
    ]
    two = jax.tree.map(lambda *x: jnp.stack(x), *(half[0] for half in halves))
    of_halves = jnp.stack([half[1] for half in halves])
    new, state = step(weighting, two, 2, losses=of_halves)
    return new, jnp.sum(mtl.task_weights(state) * of_halves)


WEIGHTINGS = {
    "mgda": mtl.mgda.weighting,
    "upgrad": mtl.upgrad.weighting,
    "cagrad": lambda: mtl.cagrad.weighting(c=0.5, preference=[0.3, 0.7]),
    "gls": mtl.gls.weighting,
    "mgda-loss": lambda: mtl.mgda.weighting(normalization="loss"),
    "aligned_mtl": mtl.aligned_mtl.weighting,
}


@pytest.mark.parametrize(
    "num_tasks", [2, 3, 4, pytest.param(7, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_halves_are_combined_and_then_the_two(name, num_tasks):
    weighting, grads = WEIGHTINGS[name](), stacked(num_tasks)
    losses = jnp.linspace(0.5, 2.0, num_tasks)
    wanted, _ = pair_by_pair(weighting, grads, losses)
    got, _ = step(mtl.divide(weighting), grads, num_tasks, losses=losses)
    chex.assert_trees_all_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_four_tasks_by_hand():
    """MGDA of orthogonal g of squared lengths 1, 3, 1, 1: shares are 1 / squares."""
    grads = {"w": jnp.diag(jnp.array([1.0, 3.0**0.5, 1.0, 1.0]))}
    tx = mtl.from_weighting(mtl.divide(mtl.mgda.weighting()), 4)
    _, state = tx.update(grads, tx.init({"w": jnp.zeros(4)}))
    # Halves are (3/4, 1/4), of squared length 3/4, and (1/2, 1/2), of 1/2.
    wanted = np.array([0.4 * 0.75, 0.4 * 0.25, 0.6 * 0.5, 0.6 * 0.5])
    np.testing.assert_allclose(mtl.task_weights(state), wanted, rtol=1e-5)


def test_two_tasks_are_the_weighting_itself_and_one_is_its_gradient():
    grads = stacked(2)
    chex.assert_trees_all_equal(
        step(mtl.divide(mtl.mgda.weighting()), grads, 2)[0],
        step(mtl.mgda.weighting(), grads, 2)[0],
    )
    alone, state = step(mtl.divide(mtl.nash_mtl.weighting()), stacked(1), 1)
    chex.assert_trees_all_close(alone, rows(stacked(1), 0), rtol=1e-6)
    assert state.weighting.pairs == ()


def test_a_half_without_an_active_task_hands_on_the_other_as_it_is():
    """And the states of the pairs that were not asked stay."""
    weighting = mtl.divide(mtl.gradvac.weighting(key=0))
    grads = stacked(4)
    _, all_in = step(weighting, grads, 4)
    active = jnp.array([False, False, True, True])
    broken = jax.tree.map(lambda g: g.at[0].set(jnp.nan), grads)
    got, state = step(weighting, broken, 4, active=active)
    wanted, _ = step(mtl.gradvac.weighting(key=0), rows(grads, [2, 3]), 2)
    chex.assert_trees_all_close(got, wanted, rtol=1e-5)
    first = weighting.init(4).pairs
    chex.assert_trees_all_equal(state.weighting.pairs[0], first[0])
    chex.assert_trees_all_equal(state.weighting.pairs[1], all_in.weighting.pairs[1])
    chex.assert_trees_all_equal(state.weighting.pairs[2], first[2])

    only_last = jnp.arange(4) == 3
    got, _ = step(weighting, broken, 4, active=only_last)
    chex.assert_trees_all_close(got, rows(grads, 3), rtol=1e-6)
    got, _ = step(weighting, broken, 4, active=jnp.zeros(4, bool))
    chex.assert_trees_all_equal(got, PARAMS)


def test_a_half_that_cancels_counts_as_zero():
    """Its rounding would otherwise be a direction to a method blind to scale."""
    g = jax.tree.map(lambda x: x[0] / 3, stacked(1))
    other = jax.tree.map(lambda x: x[0], stacked(1, seed=1))
    grads = jax.tree.map(lambda a, b: jnp.stack([a, -a, b]), g, other)
    got, _ = step(mtl.divide(mtl.imtl_g.weighting()), grads, 3)
    plain = jax.tree.map(lambda a, b: jnp.stack([0 * a, b]), g, other)
    wanted, _ = step(mtl.imtl_g.weighting(), plain, 2)
    chex.assert_trees_all_close(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: mtl.from_weighting(
                mtl.divide(mtl.cagrad.weighting(preference=jnp.ones(4))), 4
            ),
            r"divide: the weighting sees two tasks.*preference must have one entry a "
            r"task, shape \(2,\); got shape \(4,\)",
        ),
        (
            lambda: mtl.divide(mtl.cagrad.weighting(preference={"a": 1.0, "b": 2.0})),
            "two halves, which have no names",
        ),
        (
            lambda: mtl.divide(mtl.every_k(mtl.mgda.weighting(), 2)),
            r"Put it around: mtl_optax.every_k\(mtl_optax.divide\(weighting\), k\)",
        ),
        (lambda: mtl.divide(mtl.mgda), "divide takes a weighting"),
    ],
)
def test_what_does_not_divide(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_stands_within_the_other_wrappers_and_lazily_and_by_block():
    weighting = mtl.every_k(mtl.cr_mogm(mtl.divide(mtl.mgda.weighting())), 2)
    grads = stacked(3)
    got, _ = step(weighting, grads, 3)
    plain, _ = step(mtl.divide(mtl.mgda.weighting()), grads, 3)
    chex.assert_trees_all_close(got, plain, rtol=1e-5)
    lazy = mtl.lazy_task_grads(
        lambda p: jax.vmap(
            lambda g: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, g, p)))
        )(grads)
    )
    _, pulled = lazy(PARAMS)
    got, _ = step(mtl.divide(mtl.mgda.weighting()), pulled, 3)
    chex.assert_trees_all_close(got, plain, rtol=1e-5)

    tx = mtl.from_weighting(mtl.divide(mtl.mgda.weighting()), 3, granularity="leaf")
    got, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    tx = mtl.from_weighting(mtl.divide(mtl.mgda.weighting()), 3)
    own, _ = tx.update(grads["w"], tx.init(PARAMS["w"]))
    np.testing.assert_allclose(got["w"], own, rtol=1e-5)


@pytest.mark.parametrize("size", [1e-25, 1e20])
def test_gradients_whose_squares_are_no_numbers(size):
    grads = stacked(4)
    scaled = jax.tree.map(lambda g: size * g, grads)
    for make, degree in ((mtl.nash_mtl, 0), (mtl.upgrad, 1)):
        wanted, _ = step(mtl.divide(make.weighting()), grads, 4)
        got, _ = step(mtl.divide(make.weighting()), scaled, 4)
        got = jax.tree.map(lambda g, d=degree: g / size**d, got)
        chex.assert_trees_all_close(got, wanted, rtol=2e-3, atol=1e-4)
