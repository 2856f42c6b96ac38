"""every_k and cr_mogm: weights that are held, or smoothed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wrapper_runs import EACH_FORM, PARAMS, T, batch, train, two_losses

import mtl_optax as mtl

# --- every_k --------------------------------------------------------------------------


@EACH_FORM
@pytest.mark.slow
def test_every_k_holds_the_weights(form):
    """In a scan, against an unrolled loop that holds them by hand."""
    weighting = mtl.every_k(mtl.mgda.weighting(), 3)
    tx = optax.chain(mtl.from_weighting(weighting, T), optax.sgd(0.1))
    batches = [batch(seed) for seed in range(7)]
    (params, _), _ = train(tx, form, batches)

    expected, plain = PARAMS, mtl.mgda(T)
    for step, x in enumerate(batches):
        _, grads = mtl.task_grads(two_losses)(expected, x)
        if step % 3 == 0:
            _, state = plain.update(grads, plain.init(expected), expected)
        update = mtl.combine(grads, mtl.task_weights(state))
        expected = jax.tree.map(lambda p, d: p - 0.1 * d, expected, update)
    chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)


def test_every_k_holds_a_random_methods_key_and_masks_absent_tasks():
    weighting = mtl.every_k(mtl.pcgrad.weighting(key=0), 2)
    tx = mtl.from_weighting(weighting, T)
    grads = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), PARAMS)
    _, first = tx.update(grads, tx.init(PARAMS), PARAMS)
    broken = jax.tree.map(lambda g: g.at[0].set(jnp.nan), grads)
    update, second = tx.update(broken, first, PARAMS, active=jnp.array([False, True]))
    chex.assert_trees_all_equal(first.weighting.every, second.weighting.every)
    np.testing.assert_array_equal(update["w"], 1)
    assert int(second.weighting.step_in_cycle) == 0


def test_every_k_needs_a_positive_int():
    with pytest.raises(ValueError, match="k must be at least 1"):
        mtl.every_k(mtl.mgda.weighting(), 0)


def test_every_k_has_one_clock_for_all_leaves():
    weighting = mtl.every_k(mtl.mgda.weighting(), 2)
    with pytest.raises(ValueError, match="one clock for all"):
        mtl.from_weighting(weighting, T, granularity="leaf")


# --- cr_mogm --------------------------------------------------------------------------


@EACH_FORM
@pytest.mark.parametrize("given", [None, (0.1, 0.6)])
@pytest.mark.slow
def test_cr_mogm_smooths_the_weights(form, given):
    """In a scan, against an unrolled loop that smooths them by hand."""
    weighting = mtl.cr_mogm(mtl.mgda.weighting(), T, alpha=0.8, initial_weights=given)
    tx = optax.chain(mtl.from_weighting(weighting, T), optax.sgd(0.1))
    batches = [batch(seed) for seed in range(5)]
    (params, _), _ = train(tx, form, batches)

    expected, plain = PARAMS, mtl.mgda(T)
    weights = None if given is None else jnp.array(given)
    for x in batches:
        _, grads = mtl.task_grads(two_losses)(expected, x)
        _, state = plain.update(grads, plain.init(expected), expected)
        new = mtl.task_weights(state)
        weights = new if weights is None else 0.8 * weights + 0.2 * new
        update = mtl.combine(grads, weights)
        expected = jax.tree.map(lambda p, d: p - 0.1 * d, expected, update)
    chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)


def with_smallest_norm_at(share):
    """Orthogonal gradients, whose MGDA weights are 1 - share and share."""
    return {"w": jnp.diag(jnp.sqrt(jnp.array([share, 1 - share])))}


def test_cr_mogm_can_start_again_where_its_state_was_donated():
    given = jnp.full(T, 1 / T)
    weighting = mtl.cr_mogm(mtl.mgda.weighting(), initial_weights=given)
    first, second = weighting.init(T).smooth_weights, weighting.init(T).smooth_weights
    places = {x.unsafe_buffer_pointer() for x in (given, first, second)}
    assert len(places) == 3


def test_cr_mogm_starts_each_task_at_its_first_step_and_waits_for_it():
    tx = mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting(), alpha=0.5), T)
    state = tx.init({"w": jnp.zeros(T)})
    steps = [
        ((True, False), 0.25, (1.0, 0.0)),  # alone, its weight is 1
        ((True, True), 0.25, (0.875, 0.25)),  # (1 + 0.75) / 2; the first of task 1
        ((False, True), 0.25, (0.0, 0.625)),  # (0.25 + 1) / 2
        ((False, False), 0.25, (0.0, 0.0)),
        ((True, True), 0.5, (0.6875, 0.5625)),  # from 0.875 and 0.625
    ]
    for active, share, wanted in steps:
        present = jnp.array(active)
        grads = {
            "w": jnp.where(present[:, None], with_smallest_norm_at(share)["w"], jnp.nan)
        }
        before = state.weighting
        _, state = tx.update(grads, state, active=present)
        np.testing.assert_allclose(state.task_weights, wanted, rtol=1e-5)
        if not any(active):
            chex.assert_trees_all_equal(state.weighting, before)


@pytest.mark.parametrize("outside", ["cr_mogm", "every_k"])
def test_cr_mogm_with_every_k_smooths_what_is_computed(outside):
    mgda = mtl.mgda.weighting()
    weighting = (
        mtl.cr_mogm(mtl.every_k(mgda, 2), alpha=0.5)
        if outside == "cr_mogm"
        else mtl.every_k(mtl.cr_mogm(mgda, alpha=0.5), 2)
    )
    tx = mtl.from_weighting(weighting, T)
    state = tx.init({"w": jnp.zeros(T)})
    for share, wanted in ((0.5, 0.5), (0.1, 0.5), (0.25, 0.375), (0.9, 0.375)):
        _, state = tx.update(with_smallest_norm_at(share), state)
        np.testing.assert_allclose(state.task_weights, (1 - wanted, wanted), rtol=1e-5)


@pytest.mark.slow
def test_cr_mogm_forms_no_gramian_for_losses_and_works_leaf_by_leaf():
    grads = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), PARAMS)
    tx = mtl.from_weighting(mtl.cr_mogm(mtl.uw.weighting()), T)
    _, state = tx.update(grads, tx.init(PARAMS), losses=jnp.ones(T))
    assert state.task_gramian is None
    mgda = mtl.mgda.weighting()
    tx = mtl.from_weighting(mtl.cr_mogm(mgda), T, granularity="leaf")
    _, state = tx.update(grads, tx.init(PARAMS))
    np.testing.assert_allclose(state.task_weights, np.full((2, T), 0.5), rtol=1e-6)


def test_cr_mogm_with_weights_for_other_tasks():
    mgda = mtl.mgda.weighting()
    with pytest.raises(ValueError, match=r"initial_weights must .* shape \(2,\)"):
        mtl.cr_mogm(mgda, T, initial_weights=jnp.ones(3))
    with pytest.raises(ValueError, match="alpha must be at least 0"):
        mtl.cr_mogm(mgda, alpha=-0.1)
