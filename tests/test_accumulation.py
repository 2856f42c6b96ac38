"""accumulate_tasks: its definition, whatever is gathered, and what it costs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods import BY_NAME, METHODS
from wrapper_runs import PARAMS, T, batch, two_losses

import mtl_optax as mtl

K = 2
ROWS = [row for row in METHODS if row.family == "losses"]
ROWS += [BY_NAME[name] for name in ("mgda", "db_mtl")]


def micro_batches(count):
    """Stacked gradients and losses of as many micro-batches."""
    return [mtl.task_grads(two_losses)(PARAMS, batch(seed)) for seed in range(count)]


def by_definition(chain, state, micro, masks=None, **extra):
    """One update from each task's mean over the micro-batches that it was in."""
    weight = jnp.ones((len(micro), T)) if masks is None else masks
    weight = weight / jnp.maximum(weight.sum(axis=0), 1)[None, :]

    def mean(*rows):
        return sum(
            row * w.reshape(T, *[1] * (row.ndim - 1))
            for row, w in zip(rows, weight, strict=True)
        )

    some = None if masks is None else masks.any(axis=0)
    losses = mean(*(losses for losses, _ in micro))
    grads = jax.tree.map(mean, *(grads for _, grads in micro))
    extra |= {"losses": losses, "active": some}
    return chain.update(grads, state, PARAMS, **extra)


def accumulate(tx, state, micro, masks=None, extras=({},) * 9):
    """All updates, and the state after them."""
    updates = []
    for step, (losses, grads) in enumerate(micro):
        about = {"losses": losses, **extras[step]}
        about |= {} if masks is None else {"active": masks[step]}
        new, state = tx.update(grads, state, PARAMS, **about)
        updates.append(new)
    return updates, state


def compiled(tx):
    """The same, with an update that is compiled once."""
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


MICRO = micro_batches(2 * K)
MASKS = jnp.array([[True, True], [True, False], [True, False], [False, False]])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("method", ROWS, ids=lambda row: row.name)
@pytest.mark.slow
def test_each_method_gets_the_means_of_its_definition(method, masked):
    """Twice in a row: what is gathered for the first stays in the state."""
    chain = optax.chain(method.make(T), optax.trace(0.5))
    tx, chain = compiled(mtl.accumulate_tasks(chain, T, K)), compiled(chain)
    micro, state, inner = MICRO, tx.init(PARAMS), chain.init(PARAMS)
    for part in (slice(0, K), slice(K, 2 * K)):
        masks = MASKS[part] if masked else None
        (waiting, found), state = accumulate(tx, state, micro[part], masks)
        wanted, inner = by_definition(chain, inner, micro[part], masks)
        chex.assert_trees_all_close(found, wanted, rtol=2e-5, atol=1e-6)
        chex.assert_trees_all_close(state.inner, inner, rtol=2e-5, atol=1e-6)
        chex.assert_trees_all_equal(waiting, jax.tree.map(jnp.zeros_like, PARAMS))


def test_one_sum_is_kept_where_the_weights_are_known_and_no_task_is_missing():
    def kept(method):
        tx = mtl.accumulate_tasks(optax.chain(method, optax.adam(1.0)), T, K)
        small = mtl.accumulate_tasks(
            optax.chain(method, optax.adam(1.0)), T, K, missing=False
        )
        shapes = jax.eval_shape(lambda: (tx.init(PARAMS), small.init(PARAMS)))
        return [
            (state.gathered is not None, state.weighted is not None) for state in shapes
        ]

    known = {row.name for row in ROWS if kept(row.make(T))[0][1]}
    assert known == {"unitary", "mean", "constant", "uw", "imtl_l", "rlw", "dwa"}
    held = {"w": True, "b": False}
    for method in (
        mtl.on_shared(mtl.uw(T), held, rest="weights"),
        mtl.on_shared(mtl.uw(T), labels={"w": (0, 1), "b": (1,)}),
        mtl.from_weighting(mtl.cr_mogm(mtl.uw.weighting()), T),
        mtl.dwa(T, temperature=lambda step: 1.0 + step),
        mtl.constant(T, weights={"a": 1.0, "b": 2.0}),
    ):
        assert kept(method) == [(True, True), (False, True)]
    for method in (
        mtl.mgda(T),
        mtl.dwa(T, average="sliding"),
        mtl.from_weighting(mtl.every_k(mtl.uw.weighting(), 2), T),
        mtl.skip_nonfinite_tasks(mtl.unitary(T), T),
        optax.chain(optax.clip_by_global_norm(1.0), mtl.unitary(T)),
    ):
        assert kept(method) == [(True, False), (True, False)]


@pytest.mark.parametrize(
    "method",
    [
        mtl.on_shared(mtl.uw(T), {"w": True, "b": False}),
        mtl.on_shared(mtl.uw(T), labels={"w": ("a", "b"), "b": ("b",)}),
        mtl.from_weighting(mtl.cr_mogm(mtl.uw.weighting()), T),
        mtl.from_weighting(mtl.every_k(mtl.uw.weighting(), 2), T),
    ],
    ids=["on_shared", "labels", "cr_mogm", "every_k"],
)
@pytest.mark.slow
def test_what_stands_around_a_rule_of_losses_gets_the_same_means(method):
    tx = mtl.accumulate_tasks(method, T, K)

    @jax.jit
    def both(x):
        state, inner = tx.init(PARAMS), method.init(PARAMS)
        for seed in range(2):
            parts = [batch(2 * seed) + x, batch(2 * seed + 1)]
            for part in parts:
                _, lazy = mtl.lazy_task_grads(two_losses)(PARAMS, part)
                found, state = tx.update(lazy, state, PARAMS)
            _, lazy = mtl.lazy_task_grads(two_losses)(PARAMS, jnp.concatenate(parts))
            wanted, inner = method.update(lazy, inner, PARAMS)
        return found, wanted

    found, wanted = both(0.5)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_without_missing_tasks_the_values_are_the_same_and_active_is_an_error():
    chain = optax.chain(mtl.uw(T), optax.trace(0.5))
    big, small = (mtl.accumulate_tasks(chain, T, K, missing=m) for m in (True, False))
    micro = MICRO[:K]
    wanted, _ = accumulate(big, big.init(PARAMS), micro)
    found, state = accumulate(small, small.init(PARAMS), micro)
    chex.assert_trees_all_equal(found, wanted)
    assert state.gathered is None
    with pytest.raises(ValueError, match=r"missing=False.*active= was given.*Leave"):
        accumulate(small, state, micro, MASKS)
    rlw = mtl.accumulate_tasks(mtl.rlw(T, key=0), T, K, missing=False)
    with pytest.raises(ValueError, match=r"missing=False.*not known here"):
        accumulate(rlw, rlw.init(PARAMS), micro, extras=[{"normals": jnp.ones(T)}] * K)
    mtl.check_chain(small, PARAMS, T)
    behind = optax.chain(mtl.unitary(T), optax.scale_by_adam(), mtl.unitary(T))
    wrong = mtl.accumulate_tasks(behind, T, K, missing=False)
    with pytest.raises(ValueError, match="a method stands behind another one"):
        mtl.check_chain(wrong, PARAMS, T)


def test_micro_batches_with_and_without_active_are_averaged_apart():
    """Three of four come without: they weigh three quarters, whatever came first."""
    tx = mtl.accumulate_tasks(mtl.constant(T, weights=[1.0, 3.0]), T, 4)
    grads = [{"w": jnp.full((T, 1), 4.0**step)} for step in range(4)]
    for place in (0, 2, 3):
        state = tx.init({"w": jnp.zeros(1)})
        for step in range(4):
            mask = jnp.array([True, False]) if step == place else None
            update, state = tx.update(grads[step], state, active=mask)
        whole = sum(4.0**step for step in range(4) if step != place)
        np.testing.assert_allclose(update["w"], (4 * whole + 4.0**place) / 4)


def test_extra_arguments_are_those_of_the_last_micro_batch():
    chain = mtl.rlw(T, key=0)
    tx = mtl.accumulate_tasks(chain, T, K)
    micro, normals = MICRO[:K], [jnp.array([3.0, 0.0]), jnp.array([0.0, 1.0])]
    extras = [{"normals": normal} for normal in normals]
    (_, found), state = accumulate(tx, tx.init(PARAMS), micro, extras=extras)
    wanted, inner = by_definition(chain, chain.init(PARAMS), micro, **extras[-1])
    chex.assert_trees_all_close(found, wanted, rtol=1e-5)
    chex.assert_trees_all_equal(mtl.task_weights(state), mtl.task_weights(inner))


@pytest.mark.slow
def test_weights_that_are_tracers_may_differ_from_call_to_call():
    micro = MICRO[:K]

    def run(each):
        state = mtl.accumulate_tasks(mtl.constant(T, weights=each[0]), T, K).init(
            PARAMS
        )
        for weights, (losses, grads) in zip(each, micro, strict=True):
            tx = mtl.accumulate_tasks(mtl.constant(T, weights=weights), T, K)
            update, state = tx.update(grads, state, PARAMS, losses=losses)
        return update

    each = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    last = mtl.constant(T, weights=each[-1])
    wanted, _ = by_definition(last, last.init(PARAMS), micro)
    chex.assert_trees_all_close(jax.jit(run)(each), wanted, rtol=1e-5)


@pytest.mark.parametrize("method", ["uw", "mgda"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.slow
def test_nothing_of_one_update_reaches_the_next(method, masked):
    tx = mtl.accumulate_tasks(BY_NAME[method].make(T), T, K)
    micro, masks = MICRO[:K], MASKS[1:] if masked else None
    bad = [(losses, jax.tree.map(lambda g: g * jnp.nan, g)) for losses, g in micro]

    @jax.jit
    def run(first):
        state = accumulate(tx, tx.init(PARAMS), first, masks)[1]
        state = state._replace(inner=tx.init(PARAMS).inner)
        return accumulate(tx, state, micro, masks)[0][-1]

    chex.assert_trees_all_equal(run(bad), run(micro))


# --- Rows added one after the other ---------------------------------------------------


def tied(params, x):
    h = jnp.tanh(x @ params["w"])
    return jnp.stack([jnp.mean(h**2), jnp.mean((h @ params["w"]) ** 2), jnp.mean(h)])


def convolved(params, x):
    image = x.reshape(2, 1, 4, 1)
    for name in ("k", "l"):
        image = jnp.tanh(jax.lax.conv(image, params[name], (1, 1), "SAME"))
    shared = jnp.mean(image) + params["s"]
    return {"a": shared, "b": shared**2, "c": jnp.sum(params["k"] ** 2)}


def scanned(params, x):
    def layer(h, w):
        return jnp.tanh(h @ w), None

    h, _ = jax.lax.scan(jax.checkpoint(layer), x, params["layers"])
    return {
        "a": jnp.mean((h - 1) ** 2),
        "b": jnp.mean(h @ params["head"]),
        "c": jnp.sum(params["head"] ** 2),
    }


LOSSES = {
    "tied": (tied, {"w": PARAMS["w"], "v": jnp.ones(2)}, {}),
    "chunks": (tied, {"w": PARAMS["w"], "v": jnp.ones(2)}, {"chunk_size": 2}),
    "convolved": (
        convolved,
        {"k": jnp.ones((1, 1, 1, 3)), "l": jnp.ones((1, 1, 1, 1)), "s": jnp.ones(())},
        {},
    ),
    "scanned": (
        scanned,
        {"layers": jnp.stack([PARAMS["w"], PARAMS["w"].T]), "head": jnp.ones((2, 1))},
        {},
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.slow
def test_lazy_rows_are_added_as_stacked_ones_are(name):
    losses_fn, params, options = LOSSES[name]
    tx = mtl.accumulate_tasks(mtl.mgda(3), 3, 9)
    mask = {key: key in ("w", "k", "s", "layers") for key in params}
    shared = mtl.on_shared(tx, mask)
    active = jnp.array([True, False, True])

    @jax.jit
    def gathered(x):
        states = []
        for mask in (None, active):
            lazy, stacked = tx.init(params), tx.init(params)
            part = shared.init(params)
            for scale in (1.0, 2.0):
                make = mtl.lazy_task_grads(losses_fn, **options)
                _, grads = make(params, scale * x)
                _, lazy = tx.update(grads, lazy, params, active=mask)
                _, part = shared.update(grads, part, params, active=mask)
                _, stacked = tx.update(grads.stack(), stacked, params, active=mask)
            states.append((lazy.gathered, part.gathered, stacked.gathered))
        return states

    for lazy, part, stacked in gathered(batch(0, size=4)):
        chex.assert_trees_all_close(lazy, stacked, rtol=1e-5, atol=1e-7)
        among = {key: leaf for key, leaf in stacked.items() if mask[key]}
        chex.assert_trees_all_close(
            jax.tree.leaves(part), jax.tree.leaves(among), rtol=1e-5, atol=1e-7
        )
        assert all(jnp.any(leaf != 0) for leaf in among.values())


@pytest.mark.parametrize("method", [mtl.mgda(T), mtl.uw(T)], ids=["rows", "sum"])
def test_lazy_rows_are_added_over_devices(method):
    """In jax.shard_map, where loops and branches must vary alike, and on a mesh."""
    tx = mtl.accumulate_tasks(optax.chain(method, optax.adam(0.1)), T, K)

    def step(params, state, x):
        make = mtl.lazy_task_grads(two_losses, axis_name="d")
        _, lazy = make(params, x)
        return tx.update(lazy, state, params)

    auto = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("d")
    specs = {"in_specs": (whole, whole, split), "out_specs": whole}
    mapped = jax.shard_map(step, mesh=auto, **specs)
    state = jax.eval_shape(tx.init, PARAMS)
    updates, after = jax.eval_shape(mapped, PARAMS, state, batch(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, PARAMS)
    kind = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=kind)
    with jax.set_mesh(mesh):
        sharding = jax.sharding.NamedSharding(mesh, split)
        spread = jax.device_put(PARAMS, sharding)

        def stacked_step(params, state):
            grads = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
            return tx.update(grads, state, params, losses=jnp.ones(T))

        start = tx.init(spread)
        updates, after = jax.eval_shape(stacked_step, spread, start)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, start)
        assert updates["w"].sharding.spec == jax.sharding.PartitionSpec("d", None)


# --- Costs ----------------------------------------------------------------------------

WIDE, TASKS = 192, 6
# Little time for machine code, which nothing here runs, as in test_costs
UNRUN = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def deep_losses(params, x):
    for w in params["trunk"]:
        x = jnp.tanh(x @ w)
    return {name: jnp.mean((x @ w - 1) ** 2) for name, w in params["heads"].items()}


def cost_of(step, *args, copies):
    """Of a compiled step that donates its first arguments; in sizes of parameters."""
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*args)
    program = lowered.compile(compiler_options=UNRUN)
    memory = program.memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(args[0]))
    # All of the state is donated, and nothing else comes out.
    assert memory.alias_size_in_bytes / size == pytest.approx(copies, rel=0.01)
    assert memory.output_size_in_bytes / size == pytest.approx(copies, rel=0.01)
    return {
        "flops": program.cost_analysis()["flops"],
        "bytes": program.cost_analysis()["bytes accessed"],
        "temporaries": memory.temp_size_in_bytes / size,
    }


def cost_of_step(tx, copies, stacked=False):
    """Of a step with lazy gradients, or of the update from stacked ones alone."""
    params = {
        "trunk": [jnp.full((WIDE, WIDE), 0.1) for _ in range(3)],
        "heads": {f"t{t}": jnp.full((WIDE, 4), 0.1) for t in range(TASKS)},
    }

    def step(params, state, x):
        _, grads = mtl.lazy_task_grads(deep_losses)(params, x)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def update(params, state, grads):
        updates, state = tx.update(grads, state, params, losses=jnp.ones(TASKS))
        return optax.apply_updates(params, updates), state

    state, x = jax.eval_shape(tx.init, params), jnp.ones((64, WIDE))
    if stacked:
        x = jax.tree.map(lambda p: jnp.ones((TASKS, *p.shape)), params)
    return cost_of(update if stacked else step, params, state, x, copies=copies)


@pytest.mark.optimized
@pytest.mark.slow
def test_what_one_sum_costs():
    adam = optax.adam(1e-3)
    plain = cost_of_step(optax.chain(mtl.unitary(TASKS), adam), 3)
    behind = optax.MultiSteps(adam, 4).gradient_transformation()
    multi = cost_of_step(optax.chain(mtl.unitary(TASKS), behind), 4)
    chain = optax.chain(mtl.uw(TASKS), adam)
    for missing, copies in ((True, 4 + TASKS), (False, 4)):
        tx = mtl.accumulate_tasks(chain, TASKS, 4, missing=missing)
        cost = cost_of_step(tx, copies)
        assert cost["flops"] <= 1.1 * plain["flops"]
        assert cost["bytes"] <= (1.1 if missing else 0.8) * multi["bytes"]
        assert cost["temporaries"] <= multi["temporaries"]


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mgda", "stch"])
def test_one_stack_is_held_where_rows_are_needed(name):
    chain = optax.chain(BY_NAME[name].factory(TASKS), optax.adam(1e-3))
    tx = mtl.accumulate_tasks(chain, TASKS, 4)
    alone = cost_of_step(chain, 3, stacked=True)
    lazy = cost_of_step(tx, 3 + TASKS)
    # The update that waits, and a row at a time; a second stack would be 6 copies.
    assert lazy["temporaries"] <= alone["temporaries"] + 2.2
    if name == "stch":
        given = cost_of_step(tx, 3 + TASKS, stacked=True)
        assert given["temporaries"] <= alone["temporaries"] + 1.1


@pytest.mark.parametrize("method", ["mgda", "unitary"])
@pytest.mark.parametrize("masked", [False, True])
def test_samples_and_gradients_at_features_are_gathered_too(method, masked):
    """Three samples a batch, or three tasks behind features."""
    params = {"w": jnp.full((2, 2), 0.5), "v": jnp.array([1.0, -2.0])}
    active = jnp.array([True, False, True]) if masked else None

    def features(params, x):
        return jnp.tanh(x @ params["w"])

    def heads(params, z):
        return (z @ params["v"] - 1) ** 2

    def samples(params, x):
        return heads(params, features(params, x))

    tx = mtl.accumulate_tasks(getattr(mtl, method)(3), 3, 2)

    @jax.jit
    def updates(batches):
        forms = (
            mtl.task_grads(samples),
            mtl.feature_task_grads(features, lambda p, z, x: heads(p, z)),
            mtl.per_sample_grads(samples),
        )
        found = []
        for make in forms:
            state = tx.init(params)
            for x in batches:
                _, grads = make(params, x)
                update, state = tx.update(grads, state, params, active=active)
            found.append(update)
        return found

    wanted, *found = updates([batch(seed, size=3) for seed in range(2)])
    for update in found:
        chex.assert_trees_all_close(update, wanted, rtol=1e-4, atol=1e-6)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(wanted))
