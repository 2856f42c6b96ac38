"""per_task, accumulate_tasks, skip_nonfinite_tasks, and all wrappers over seeds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wrapper_runs import EACH_FORM, FORMS, PARAMS, T, batch, train, two_losses

import mtl_optax as mtl

# --- per_task -------------------------------------------------------------------------


@EACH_FORM
@pytest.mark.slow
def test_per_task_is_the_transformation_of_each_task(form):
    each = optax.chain(optax.clip_by_global_norm(0.1), optax.trace(0.9))
    tx = optax.chain(mtl.per_task(each, T), mtl.unitary(T), optax.scale(-0.1))
    batches = [batch(seed) for seed in range(3)]
    (params, _), _ = train(tx, form, batches)

    expected, states = PARAMS, [each.init(PARAMS) for _ in range(T)]
    for x in batches:
        _, grads = mtl.task_grads(two_losses)(expected, x)
        total = jax.tree.map(jnp.zeros_like, PARAMS)
        for t in range(T):
            row = jax.tree.map(lambda g, t=t: g[t], grads)
            clipped, states[t] = each.update(row, states[t])
            total = jax.tree.map(jnp.add, total, clipped)
        expected = jax.tree.map(lambda p, d: p - 0.1 * d, expected, total)
    chex.assert_trees_all_close(params, expected, rtol=1e-5, atol=1e-6)


@EACH_FORM
def test_one_adam_a_task_does_not_depend_on_loss_scales(form):
    """AdaTask; one Adam after the sum does depend on them."""
    batches = [batch(seed) for seed in range(20)]
    ada = optax.chain(
        mtl.per_task(optax.scale_by_adam(eps=0), T), mtl.unitary(T), optax.scale(-0.01)
    )
    plain = optax.chain(mtl.unitary(T), optax.scale_by_adam(eps=0), optax.scale(-0.01))
    ends = {
        (name, scale): train(tx, form, batches, scale)[0][0]
        for name, tx in {"ada": ada, "plain": plain}.items()
        for scale in (1.0, 1024.0)
    }
    chex.assert_trees_all_close(ends["ada", 1.0], ends["ada", 1024.0], rtol=1e-5)
    gap = ends["plain", 1.0]["w"] - ends["plain", 1024.0]["w"]
    assert jnp.max(jnp.abs(gap)) > 1e-3


def test_per_task_state_of_an_inactive_task_stays():
    tx = mtl.per_task(optax.scale_by_adam(), T)
    _, grads = mtl.task_grads(two_losses)(PARAMS, batch(0))
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), grads)
    active = jnp.array([True, False])
    updates, state = tx.update(broken, tx.init(PARAMS), PARAMS, active=active)
    np.testing.assert_array_equal(state.each.count, [1, 0])
    np.testing.assert_array_equal(state.each.mu["w"][1], 0)
    np.testing.assert_array_equal(updates["w"][1], 0)
    chex.assert_tree_all_finite((updates, state))


def test_per_task_under_vmap_over_a_hyperparameter():
    _, grads = mtl.task_grads(two_losses)(PARAMS, batch(0))

    def clipped(limit):
        tx = mtl.per_task(optax.clip_by_global_norm(limit), T)
        return tx.update(grads, tx.init(PARAMS))[0]

    both = jax.vmap(clipped)(jnp.array([0.1, 0.2]))
    for i, limit in enumerate((0.1, 0.2)):
        one = jax.tree.map(lambda x, i=i: x[i], both)
        norms = jax.vmap(optax.tree.norm)(one)
        np.testing.assert_allclose(norms, limit, rtol=1e-5)


# --- accumulate_tasks -----------------------------------------------------------------


def accumulated(method, k):
    return mtl.accumulate_tasks(optax.chain(method, optax.adam(0.1)), T, k)


@EACH_FORM
@pytest.mark.parametrize(
    "method",
    [mtl.mgda(T), mtl.cagrad(T), mtl.uw(T), mtl.pcgrad(T, key=0)],
    ids=["mgda", "cagrad", "uw", "pcgrad"],
)
@pytest.mark.slow
def test_accumulation_equals_the_big_batch(form, method):
    micro = [batch(seed) for seed in range(6)]
    big = [jnp.concatenate(micro[i : i + 3]) for i in (0, 3)]
    (params, _), updates = train(accumulated(method, 3), form, micro)
    (expected, _), _ = train(optax.chain(method, optax.adam(0.1)), form, big)
    chex.assert_trees_all_close(params, expected, rtol=1e-4, atol=1e-5)
    for step in (0, 1, 3, 4):
        np.testing.assert_array_equal(updates["w"][step], 0)


def test_multi_steps_after_the_method_is_another_algorithm():
    micro = [batch(seed, size=2) for seed in range(4)]
    big = [jnp.concatenate(micro)]
    tx = optax.chain(
        mtl.mgda(T), optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation()
    )
    (each, _), _ = train(tx, "stacked", micro)
    (once, _), _ = train(optax.chain(mtl.mgda(T), optax.sgd(0.1)), "stacked", big)
    assert jnp.max(jnp.abs(each["w"] - once["w"])) > 1e-4


def test_accumulation_of_a_task_that_is_sometimes_absent():
    """Its mean is over the micro-batches that it was in."""
    tx = mtl.accumulate_tasks(mtl.unitary(T), T, 2)
    state = tx.init(PARAMS)
    grads = [mtl.task_grads(two_losses)(PARAMS, batch(seed))[1] for seed in range(2)]
    absent = jax.tree.map(lambda g: g.at[1].set(jnp.nan), grads[1])
    _, state = tx.update(grads[0], state, PARAMS, active=jnp.array([True, True]))
    update, _ = tx.update(absent, state, PARAMS, active=jnp.array([True, False]))
    expected = (grads[0]["w"][0] + grads[1]["w"][0]) / 2 + grads[0]["w"][1]
    np.testing.assert_allclose(update["w"], expected, rtol=1e-5)


def test_accumulation_where_a_task_never_came():
    tx = mtl.accumulate_tasks(mtl.mean(T), T, 2)
    state, active = tx.init(PARAMS), jnp.array([True, False])
    _, grads = mtl.task_grads(two_losses)(PARAMS, batch(0))
    for _ in range(2):
        update, state = tx.update(grads, state, PARAMS, active=active)
    np.testing.assert_allclose(update["w"], grads["w"][0], rtol=1e-6)
    np.testing.assert_array_equal(mtl.task_weights(state), [1, 0])


def test_accumulation_of_bad_lengths():
    for every_k in (0, 2.0):
        with pytest.raises(ValueError, match="every_k must be"):
            mtl.accumulate_tasks(mtl.mean(T), T, every_k)


# --- skip_nonfinite_tasks -------------------------------------------------------------


@EACH_FORM
def test_a_nan_task_is_skipped_and_counted(form):
    def losses(params, x):
        named = two_losses(params, x)
        return {"a": named["a"], "b": named["b"] * jnp.where(x[0, 0] > 0, jnp.nan, 1)}

    tx = optax.chain(mtl.skip_nonfinite_tasks(mtl.cagrad(T), T), optax.sgd(0.1))

    @jax.jit
    def step(params, state, x):
        _, grads = FORMS[form](losses)(params, x)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state, bad = PARAMS, tx.init(PARAMS), 0
    for seed in range(8):
        x = batch(seed)
        bad += int(x[0, 0] > 0)
        params, state = step(params, state, x)
    assert 0 < bad < 8
    np.testing.assert_array_equal(state[0].nonfinite_counts, [0, bad])
    chex.assert_tree_all_finite(params)


def test_all_tasks_nonfinite_gives_zero():
    tx = mtl.skip_nonfinite_tasks(mtl.mgda(T), T)
    grads = jax.tree.map(lambda p: jnp.full((T, *p.shape), jnp.inf), PARAMS)
    update, state = tx.update(grads, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(update, jax.tree.map(jnp.zeros_like, PARAMS))
    np.testing.assert_array_equal(state.nonfinite_counts, [1, 1])


def test_a_nonfinite_loss_counts_and_an_absent_task_does_not():
    tx = mtl.skip_nonfinite_tasks(mtl.uw(T), T)
    grads = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), PARAMS)
    losses = jnp.array([jnp.nan, jnp.inf])
    active = jnp.array([True, False])
    update, state = tx.update(
        grads, tx.init(PARAMS), PARAMS, losses=losses, active=active
    )
    np.testing.assert_array_equal(state.nonfinite_counts, [1, 0])
    np.testing.assert_array_equal(update["w"], 0)


# --- All of them over seeds -----------------------------------------------------------

WRAPPED = {
    "per_task": optax.chain(mtl.per_task(optax.trace(0.9), T), mtl.mgda(T)),
    "accumulate_tasks": mtl.accumulate_tasks(mtl.mgda(T), T, 2),
    "skip_nonfinite_tasks": mtl.skip_nonfinite_tasks(mtl.mgda(T), T),
    "cr_mogm": mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting()), T),
    "every_k": mtl.from_weighting(mtl.every_k(mtl.mgda.weighting(), 2), T),
    "on_shared": mtl.on_shared(mtl.mgda(T), {"w": True, "b": False}),
    "safe_normalize": optax.chain(mtl.mgda(T), mtl.safe_normalize()),
}


@EACH_FORM
@pytest.mark.slow
@pytest.mark.parametrize("name", WRAPPED)
def test_seeds_under_vmap_in_a_scan_are_those_alone(name, form):
    tx = optax.chain(WRAPPED[name], optax.sgd(0.1))

    def run(seed, active):
        def step(carry, x):
            params, state = carry
            losses, grads = FORMS[form](two_losses)(params, x)
            updates, state = tx.update(
                grads, state, params, losses=losses, active=active
            )
            return (optax.apply_updates(params, updates), state), None

        start = jax.tree.map(lambda p: p * (1 + seed), PARAMS)
        keys = jax.random.split(jax.random.key(0), 4)
        batches = jax.vmap(lambda key: jax.random.normal(key, (8, 2)))(keys)
        return jax.lax.scan(step, (start, tx.init(start)), batches)[0][0]

    seeds = jnp.array([0.0, 0.5])
    active = jnp.array([[True, True], [True, False]])
    both = jax.jit(jax.vmap(run))(seeds, active)
    alone = [jax.jit(run)(seeds[i], active[i]) for i in range(2)]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    chex.assert_trees_all_close(both, expected, rtol=1e-4, atol=1e-5)
