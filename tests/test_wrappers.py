"""per_task, accumulate_tasks, skip_nonfinite_tasks, SAM helpers, Linen train state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl
from mtl_optax.flax_support import MultiTaskTrainState

T = 2
PARAMS = {"w": jnp.array([[0.5, -1.0], [2.0, 0.3]]), "b": jnp.array([0.1, -0.2])}


def losses_fn(params, x, scale=1.0):
    h = jnp.tanh(x @ params["w"]) + params["b"][None, :]
    return {"a": scale * jnp.mean((h - 1) ** 2), "b": jnp.mean((h[:, 0] + 2) ** 2)}


def batch(seed, size=8):
    return jax.random.normal(jax.random.key(seed), (size, 2))


FORMS = {"stacked": mtl.task_grads, "lazy": mtl.lazy_task_grads}
EACH_FORM = pytest.mark.parametrize("form", FORMS)


def train(tx, form, batches, scale=1.0, **extra):
    """Parameters after one jitted step a batch in a scan, and the last state."""

    def step(carry, x):
        params, state = carry
        losses, grads = FORMS[form](losses_fn)(params, x, scale)
        updates, state = tx.update(grads, state, params, losses=losses, **extra)
        return (optax.apply_updates(params, updates), state), updates

    start = PARAMS, tx.init(PARAMS)
    return jax.jit(lambda: jax.lax.scan(step, start, jnp.stack(batches)))()


# --- per_task -------------------------------------------------------------------------


@EACH_FORM
def test_per_task_is_the_transformation_of_each_task(form):
    each = optax.chain(optax.clip_by_global_norm(0.1), optax.trace(0.9))
    tx = optax.chain(mtl.per_task(each, T), mtl.unitary(T), optax.scale(-0.1))
    batches = [batch(seed) for seed in range(3)]
    (params, _), _ = train(tx, form, batches)

    expected, states = PARAMS, [each.init(PARAMS) for _ in range(T)]
    for x in batches:
        _, grads = mtl.task_grads(losses_fn)(expected, x)
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
    _, grads = mtl.task_grads(losses_fn)(PARAMS, batch(0))
    broken = jax.tree.map(lambda g: g.at[1].set(jnp.nan), grads)
    active = jnp.array([True, False])
    updates, state = tx.update(broken, tx.init(PARAMS), PARAMS, active=active)
    np.testing.assert_array_equal(state.count, [1, 0])
    np.testing.assert_array_equal(state.mu["w"][1], 0)
    np.testing.assert_array_equal(updates["w"][1], 0)
    chex.assert_tree_all_finite((updates, state))


def test_per_task_under_vmap_over_a_hyperparameter():
    _, grads = mtl.task_grads(losses_fn)(PARAMS, batch(0))

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
    grads = [mtl.task_grads(losses_fn)(PARAMS, batch(seed))[1] for seed in range(2)]
    absent = jax.tree.map(lambda g: g.at[1].set(jnp.nan), grads[1])
    _, state = tx.update(grads[0], state, PARAMS, active=jnp.array([True, True]))
    update, _ = tx.update(absent, state, PARAMS, active=jnp.array([True, False]))
    expected = (grads[0]["w"][0] + grads[1]["w"][0]) / 2 + grads[0]["w"][1]
    np.testing.assert_allclose(update["w"], expected, rtol=1e-5)


def test_accumulation_where_a_task_never_came():
    tx = mtl.accumulate_tasks(mtl.mean(T), T, 2)
    state, active = tx.init(PARAMS), jnp.array([True, False])
    _, grads = mtl.task_grads(losses_fn)(PARAMS, batch(0))
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
        named = losses_fn(params, x)
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


# --- SAM helpers ----------------------------------------------------------------------


def test_drop_extra_args_lets_a_method_with_losses_stand_before_sam():
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05))
    grads = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), PARAMS)
    losses = jnp.ones(T)
    bare = optax.chain(mtl.uw(T), sam)
    with pytest.raises(TypeError, match="losses"):
        bare.update(grads, bare.init(PARAMS), PARAMS, losses=losses)
    tx = optax.chain(mtl.uw(T), mtl.drop_extra_args(sam))
    update, _ = tx.update(grads, tx.init(PARAMS), PARAMS, losses=losses)
    np.testing.assert_allclose(update["w"], 0.05, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_safe_normalize(dtype):
    tx = mtl.safe_normalize()
    updates = {"a": jnp.array([3.0], dtype), "b": jnp.array([4.0], dtype)}
    got, _ = tx.update(updates, tx.init(updates))
    chex.assert_trees_all_equal_dtypes(got, updates)
    np.testing.assert_allclose(got["b"].astype(jnp.float32), 0.8, rtol=1e-2)
    zero = jax.tree.map(jnp.zeros_like, updates)
    chex.assert_trees_all_equal(tx.update(zero, ())[0], zero)


def test_sam_at_a_pareto_stationary_point_stays_finite():
    opposite = jax.tree.map(lambda p: jnp.stack([p, -p]), PARAMS)

    def run(normalize):
        tx = optax.contrib.sam(
            optax.chain(mtl.mgda(T), optax.sgd(0.1)),
            optax.chain(mtl.mgda(T), normalize, optax.sgd(0.05)),
        )
        return tx.update(opposite, tx.init(PARAMS), PARAMS)[0]

    chex.assert_tree_all_finite(run(mtl.safe_normalize()))
    assert jnp.any(jnp.isnan(run(optax.contrib.normalize())["w"]))


# --- Linen ----------------------------------------------------------------------------


@EACH_FORM
def test_multi_task_train_state_hands_extra_arguments_on(form):
    tx = optax.chain(mtl.uw(T), optax.sgd(0.1))
    state = MultiTaskTrainState.create(apply_fn=None, params=PARAMS, tx=tx)

    @jax.jit
    def step(state, x):
        losses, grads = FORMS[form](losses_fn)(state.params, x)
        return state.apply_gradients(grads=grads, losses=losses)

    state = step(step(state, batch(0)), batch(1))
    (expected, _), _ = train(tx, form, [batch(0), batch(1)])
    chex.assert_trees_all_close(state.params, expected, rtol=1e-6)
    assert int(state.step) == 2


# --- every_k --------------------------------------------------------------------------


@EACH_FORM
def test_every_k_holds_the_weights(form):
    """In a scan, against an unrolled loop that holds them by hand."""
    weighting = mtl.every_k(mtl.mgda.weighting(), 3)
    tx = optax.chain(mtl.from_weighting(weighting, T), optax.sgd(0.1))
    batches = [batch(seed) for seed in range(7)]
    (params, _), _ = train(tx, form, batches)

    expected, plain = PARAMS, mtl.mgda(T)
    for step, x in enumerate(batches):
        _, grads = mtl.task_grads(losses_fn)(expected, x)
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
def test_cr_mogm_smooths_the_weights(form, given):
    """In a scan, against an unrolled loop that smooths them by hand."""
    weighting = mtl.cr_mogm(mtl.mgda.weighting(), T, alpha=0.8, initial_weights=given)
    tx = optax.chain(mtl.from_weighting(weighting, T), optax.sgd(0.1))
    batches = [batch(seed) for seed in range(5)]
    (params, _), _ = train(tx, form, batches)

    expected, plain = PARAMS, mtl.mgda(T)
    weights = None if given is None else jnp.array(given)
    for x in batches:
        _, grads = mtl.task_grads(losses_fn)(expected, x)
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


# --- subsample_tasks ------------------------------------------------------------------

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
            losses, grads = FORMS[form](losses_fn)(params, x)
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
