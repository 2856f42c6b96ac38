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
    "accumulate_tasks, one sum": mtl.accumulate_tasks(mtl.uw(T), T, 2),
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


# --- Chains that return other dtypes than the parameters' -----------------------------

LOW = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)


def casting(dtype):
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u: u.astype(dtype), updates)
    )


def weakly(updates, params):
    return jax.tree.map(lambda u: jnp.where(u > 0, 1.0, -1.0), updates)


CHAINS = {
    "float32 moments": (optax.adam(0.1, mu_dtype=jnp.float32), jnp.float32),
    "float32": (casting(jnp.float32), jnp.float32),
    "float16": (casting(jnp.float16), jnp.float16),
    "weak": (optax.stateless(weakly), jnp.float32),
    "as the parameters": (optax.sgd(0.1), jnp.bfloat16),
    "injected": (optax.inject_hyperparams(optax.sgd)(0.1), jnp.bfloat16),
}


def low_losses(params):
    return {"a": jnp.sum(params["w"] ** 2), "b": jnp.sum((params["b"] - 1) ** 2)}


OUTSIDE = {
    "accumulate_tasks": lambda chain: mtl.accumulate_tasks(
        optax.chain(mtl.mgda(T), chain), T, 2
    ),
    "skip_nonfinite_tasks": lambda chain: mtl.skip_nonfinite_tasks(
        optax.chain(mtl.mgda(T), chain), T
    ),
    "every_k": lambda chain: optax.chain(
        mtl.from_weighting(mtl.every_k(mtl.mgda.weighting(), 2), T), chain
    ),
    "per_task": lambda chain: mtl.per_task(chain, T),
    "selective_groups": lambda chain: mtl.selective_groups(
        T, chain, owner={"w": None, "b": 1}, key=0
    ),
    "cso": lambda chain: mtl.cso(
        T, chain, strength_fn=lambda *_: None, total_epochs=2, key=0
    ),
    "task_affinity": lambda chain: mtl.task_affinity(T, optimizer=chain, owner=None),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("outside", OUTSIDE)
def test_branches_agree_whatever_dtype_a_chain_returns(outside, chain):
    inner, dtype = CHAINS[chain]
    tx = OUTSIDE[outside](inner)
    if outside in ("selective_groups", "cso", "task_affinity"):
        dtype = jnp.bfloat16  # displacements, and gradients as they came

    def step(state, active):
        losses, grads = mtl.task_grads(low_losses)(LOW)
        more = {"losses": losses, "losses_fn": low_losses, "epoch": 1}
        updates, state = tx.update(grads, state, LOW, active=active, **more)
        return state, updates

    active = jnp.ones((4, T), bool)
    start = jax.eval_shape(tx.init, LOW)
    state, updates = jax.eval_shape(lambda s: jax.lax.scan(step, s, active), start)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, start)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def test_accumulated_updates_in_float32_are_those_of_the_chain():
    adam = optax.adam(0.1, mu_dtype=jnp.float32)
    tx = mtl.accumulate_tasks(optax.chain(mtl.mgda(T), adam), T, 2)
    _, grads = mtl.task_grads(low_losses)(LOW)
    state, updates = tx.init(LOW), []
    for _ in range(2):
        update, state = tx.update(grads, state, LOW)
        updates.append(update)
    plain = optax.chain(mtl.mgda(T), adam)
    wanted, _ = plain.update(grads, plain.init(LOW), LOW)
    chex.assert_trees_all_equal(updates[0], jax.tree.map(jnp.zeros_like, wanted))
    # The cond is compiled, where bfloat16 may keep more digits.
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    chex.assert_trees_all_close(updates[1], wanted, rtol=eps)
    chex.assert_trees_all_equal_dtypes(updates[1], wanted)


def test_a_weighting_that_returns_other_dtypes_is_held_too():
    def update(gramian, state, *, active, **extra):
        return jnp.ones(active.shape, jnp.bfloat16), state + jnp.float16(1)

    loose = mtl.Weighting(lambda n: jnp.zeros(n, jnp.bfloat16), update, False)
    tx = mtl.from_weighting(mtl.every_k(loose, 2), T)
    _, grads = mtl.task_grads(low_losses)(LOW)
    state = tx.init(LOW)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(lambda: tx.update(grads, state, LOW)[1]), state
    )


@pytest.mark.parametrize("wrap", ["accumulate_tasks", "selective_groups"])
def test_a_chain_whose_state_changes_its_shape(wrap):
    grow = optax.GradientTransformation(
        lambda params: jnp.zeros(1), lambda u, s, p=None: (u, jnp.append(s, s))
    )
    tx = OUTSIDE[wrap](grow)
    _, grads = mtl.task_grads(low_losses)(LOW)
    with pytest.raises(ValueError, match=r"changes its state.*check_chain"):
        jax.eval_shape(
            lambda: tx.update(grads, tx.init(LOW), LOW, losses_fn=low_losses)
        )


def test_accumulation_over_devices():
    """Both branches have the same shardings, on an Explicit mesh and in shard_map."""
    axes = {"axis_types": (jax.sharding.AxisType.Explicit,)}
    spec = jax.sharding.PartitionSpec("d")
    tx = mtl.accumulate_tasks(optax.chain(mtl.mgda(T), optax.adam(0.1)), T, 2)

    def step(params):
        grads = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
        return tx.update(grads, tx.init(params), params)[0]

    mesh = jax.make_mesh((2,), ("d",), **axes)
    with jax.set_mesh(mesh):
        sharding = jax.sharding.NamedSharding(mesh, spec)
        whole = jax.device_put({"w": jnp.ones((4, 3), jnp.bfloat16)}, sharding)
        got = jax.eval_shape(step, whole)["w"].sharding.spec
        assert got == jax.sharding.PartitionSpec("d", None)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    mean = lambda x: step({"w": jax.lax.pmean(x, "d")})  # noqa: E731
    replicated = jax.sharding.PartitionSpec()
    mapped = jax.shard_map(mean, mesh=mesh, in_specs=spec, out_specs=replicated)
    assert jax.eval_shape(mapped, jnp.ones((4, 3)))["w"].shape == (2, 3)


# --- Random draws ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", [0, 7, jax.random.key(3), jax.random.key(1, impl="rbg")]
)
def test_each_task_has_noise_of_its_own(key):
    tx = mtl.per_task(optax.add_noise(1.0, 0.0, key=key), 3)
    params = {"w": jnp.zeros(4), "b": jnp.zeros(4)}
    grads = jax.tree.map(lambda p: jnp.zeros((3, *p.shape)), params)
    state, rows = tx.init(params), []
    for _ in range(2):
        noise, state = tx.update(grads, state, params)
        rows += [row for leaf in jax.tree.leaves(noise) for row in np.asarray(leaf)]
    assert len({tuple(row) for row in rows}) == len(rows) == 12
    deviation = np.std(rows)
    assert 0.6 < deviation < 1.5


def test_raw_keys_and_keys_in_a_batch_are_folded_and_counters_are_not():
    keys = {
        "raw": jax.random.PRNGKey(5),
        "batch": jax.random.split(jax.random.key(2), 3),
        "raw batch": jax.random.split(jax.random.PRNGKey(2), 3),
        "count": jnp.zeros((), jnp.uint32),
        "number": jnp.arange(2),
    }
    holding = optax.GradientTransformation(lambda p: keys, lambda u, s, p=None: (u, s))
    state = mtl.per_task(holding, 2).init(jnp.ones(2)).each
    for name, leaf in state.items():
        assert leaf.shape == (2, *keys[name].shape)
        assert leaf.dtype == keys[name].dtype
        rows = leaf if "a" not in name or "raw" in name else jax.random.key_data(leaf)
        assert np.any(rows[0] != rows[1]) == (name not in ("count", "number"))
    folded = jax.random.key_data(jax.random.fold_in(jax.random.key(5), 1))
    np.testing.assert_array_equal(state["raw"][1], folded)
    seeds = jax.vmap(lambda _: mtl.per_task(holding, 2).init(jnp.ones(2)))(jnp.ones(3))
    assert seeds.each["raw"].shape == (3, 2, 2)


@pytest.mark.parametrize(
    "wrapped",
    [
        mtl.accumulate_tasks(mtl.mgda(T), T, 2),
        mtl.accumulate_tasks(mtl.uw(T), T, 2, missing=False),
        mtl.accumulate_tasks(mtl.uw(T), T, 2),
        mtl.from_weighting(mtl.cr_mogm(mtl.every_k(mtl.mgda.weighting(), 2)), T),
        mtl.on_shared(mtl.moco(T), {"w": True, "b": False}),
        mtl.per_task(optax.scale_by_adam(), T),
        mtl.skip_nonfinite_tasks(mtl.mgda(T), T),
        mtl.son_goku(mtl.mgda(T), T),
        mtl.stale(mtl.mgda(T), T, decay=lambda step: 0.9),
    ],
)
def test_initial_states_share_no_buffer(wrapped):
    """Else a first step that is donated the state fails."""
    leaves = jax.tree.leaves((wrapped.init(PARAMS), wrapped.init(PARAMS)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
