"""Momenta of all tasks, of which a step renews some."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stale_runs import PARAMS, flat, lazily, numpy_rows, run, stacks

import mtl_optax as mtl


@pytest.mark.parametrize("refresh", [1, 2, 3])
@pytest.mark.parametrize("lazy", [False, True])
def test_stale_hands_on_fresh_and_stale_rows(refresh, lazy):
    """Whatever the method is, it sees the momenta, and a chain rests before."""
    grads = stacks(3, 7)
    turns = [[(refresh * i + j) % 3 for j in range(refresh)] for i in range(7)]
    tx = mtl.stale(
        optax.chain(mtl.upgrad(3), optax.scale_by_adam()),
        num_tasks=3,
        refresh=refresh,
        decay=0.7,
    )
    found, _ = lazily(tx, grads, 3) if lazy else run(tx, grads)
    plain = optax.chain(mtl.upgrad(3), optax.scale_by_adam())
    state, wanted = plain.init(jnp.zeros(10)), []
    for rows in numpy_rows(grads, 3, 0.7, turns):
        if rows is None:
            wanted.append(np.zeros(10))
            continue
        update, state = plain.update(jnp.float32(rows), state)
        wanted.append(update)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        lambda t: mtl.pcgrad(t, key=0, granularity="leaf"),
        lambda t: mtl.on_shared(mtl.mgda(t), {"w": True, "v": False}),
        lambda t: mtl.graddrop(t, key=0),
        lambda t: mtl.famo(t),
        lambda t: mtl.moco(t),
        lambda t: mtl.from_weighting(mtl.every_k(mtl.nash_mtl.weighting(), 2), t),
    ],
)
def test_any_method_takes_stale_rows(method):
    """With every task renewed and no memory they are the gradients."""
    grads = stacks(3, 3)
    losses = {"losses": jnp.array([1.0, 2.0, 0.5])}
    found, _ = run(
        mtl.stale(method(3), 3, refresh=3, decay=0.0), grads, extras=(losses,)
    )
    wanted, _ = run(method(3), grads, extras=(losses,))
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


def test_missing_tasks_keep_their_rows_and_their_turn_passes():
    grads = stacks(3, 6)
    present = jnp.array(
        [[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [1] * 3]
    )
    turns = [[0], [2], [0], [], [1], [2]]
    tx = mtl.stale(mtl.unitary(3), num_tasks=3, decay=0.5)
    extras = [{"active": row.astype(bool)} for row in present]
    wanted = [
        np.zeros(10) if rows is None else rows.sum(axis=0)
        for rows in numpy_rows(grads, 3, 0.5, turns)
    ]
    found, state = run(tx, grads, extras)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    found, _ = lazily(tx, grads, 3, active=present.astype(bool))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert optax.tree.get(state, "due").tolist() == [True, False, False]


def test_the_loss_of_a_missing_task_is_the_one_last_seen():
    tx = mtl.stale(mtl.scale_invariant(2), num_tasks=2, decay=0.0, refresh=2)
    params, grads = jnp.zeros(1), jnp.array([[1.0], [1.0]])
    state = tx.init(params)
    seen, both = jnp.array([2.0, 4.0]), jnp.array([True, True])
    _, state = tx.update(grads, state, params, losses=seen, active=both)
    update, _ = tx.update(
        *(grads, state, params),
        losses=jnp.array([jnp.nan, 8.0]),
        active=jnp.array([False, True]),
    )
    np.testing.assert_allclose(update, 1 / 2 + 1 / 8)


def test_random_order_is_fair_and_due_says_who_comes():
    tx = mtl.stale(mtl.unitary(4), num_tasks=4, refresh=2, order="random", key=3)
    params, grads, state = jnp.zeros(1), jnp.ones((4, 1)), None
    state, step = tx.init(params), jax.jit(tx.update)
    counts = np.zeros(4, int)
    for _ in range(60):
        due = np.asarray(optax.tree.get(state, "due"))
        assert due.sum() == 2
        counts += due
        _, state = step(grads, state, params)
        assert optax.tree.get(state, "counts").tolist() == counts.tolist()
    assert counts.min() >= 18


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**66])
def test_rows_of_any_size(scale):
    """Their products are of rows over their sizes."""
    grads = [jax.tree.map(lambda g: g * np.float32(scale), g) for g in stacks(3, 5)]
    for make in (mtl.upgrad, mtl.mgda):
        tx = mtl.stale(make(3), num_tasks=3)
        found, _ = run(tx, grads)
        wanted, _ = run(tx, stacks(3, 5))
        np.testing.assert_allclose(found / scale, wanted, rtol=1e-4, atol=1e-5)
        assert np.any(wanted)


LAYERS = 32


def network(shared):
    """Four tasks on a trunk, or on the same weights with inputs of their own."""
    keys = jax.random.split(jax.random.key(0), 8)
    params = {
        "trunk": [jax.random.normal(k, (LAYERS, LAYERS)) / 6 for k in keys[:3]],
        "heads": {str(t): jax.random.normal(keys[t], (LAYERS,)) for t in range(4)},
    }
    x = jax.random.normal(keys[4], (64, LAYERS))

    def losses(p):
        def features(x):
            for w in p["trunk"]:
                x = jnp.tanh(x @ w)
            return x

        z = features(x) if shared else None
        return {
            t: jnp.mean(((z if shared else features(x + int(t))) @ p["heads"][t]) ** 2)
            for t in p["heads"]
        }

    return params, losses


def test_every_form_of_gradients():
    """At features a row is the parameters' gradient; samples are tasks, too."""
    params, _ = network(shared=True)
    trunk, head = params["trunk"][0], params["heads"]["0"]
    params, x = (
        {"w": trunk, "v": head},
        jax.random.normal(jax.random.key(1), (4, LAYERS)),
    )

    def features(p):
        return jnp.tanh(x @ p["w"])

    def samples(p):
        return (features(p) @ p["v"] - 1) ** 2

    def heads(p, z):
        return tuple((z @ p["v"] - 1) ** 2)

    wanted = mtl.task_grads(lambda p: heads(p, features(p)))(params)[1]
    for form in (
        mtl.feature_task_grads(features, heads),
        mtl.per_sample_grads(samples),
    ):
        tx = mtl.stale(mtl.unitary(4), num_tasks=4, refresh=3, decay=0.0)
        state = tx.init(params)
        for _ in range(2):
            update, state = tx.update(form(params)[1], state, params)
        (rows,) = optax.tree.get(state, "averages")
        for name in params:
            np.testing.assert_allclose(rows[name], wanted[name], rtol=1e-4, atol=1e-5)
            total = wanted[name].sum(axis=0)
            np.testing.assert_allclose(update[name], total, rtol=1e-4, atol=1e-4)


@pytest.mark.optimized
@pytest.mark.parametrize("shared", [True, False])
def test_one_tasks_work_a_step(shared):
    """FLOPs of a step beside those of a step of one task with Adam, and one stack."""
    params, losses = network(shared)
    adam = optax.adam(1e-3)

    def alone(params, state):
        grads = jax.grad(lambda p: losses(p)["0"])(params)
        return adam.update(grads, state, params)

    def step(tx):
        def update(params, state):
            _, lazy = mtl.lazy_task_grads(losses)(params)
            return tx.update(lazy, state, params)

        return update

    def compiled(update, tx):
        state = tx.init(params)
        return jax.jit(update, donate_argnums=1).lower(params, state).compile()

    one = compiled(alone, adam).cost_analysis()["flops"]
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    for tx in (
        optax.chain(mtl.mconfig(4), optax.scale_by_learning_rate(1e-3)),
        mtl.stale(optax.chain(mtl.mean(4), adam), num_tasks=4),
    ):
        found = compiled(step(tx), tx)
        assert found.cost_analysis()["flops"] < 1.25 * one
        # The momenta are renewed in place: nothing of many rows is made.
        assert found.memory_analysis().temp_size_in_bytes < 4 * size + 2**17


@pytest.mark.optimized
def test_many_rows_are_renewed_in_place():
    """Of eight tasks, also where the method is put on what they share."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.float32(rng.normal(size=(64, 512))), "b": jnp.zeros((8, 64))}

    def losses(p):
        z = jnp.tanh(rng.normal(size=(8, 64)).astype(np.float32) @ p["w"])
        return tuple(jnp.mean((z[:, :64] @ b - 1) ** 2) for b in p["b"])

    shared = {"w": True, "b": False}
    for tx in (
        mtl.stale(mtl.upgrad(8), num_tasks=8),
        mtl.stale(mtl.on_shared(mtl.mgda(8), shared), num_tasks=8),
        mtl.on_shared(mtl.stale(mtl.mgda(8), num_tasks=8), shared),
    ):

        def update(state, tx=tx):
            return tx.update(mtl.lazy_task_grads(losses)(params)[1], state, params)

        state = tx.init(params)
        compiled = jax.jit(update, donate_argnums=0).lower(state).compile()
        size = sum(x.nbytes for x in jax.tree.leaves(params))
        assert compiled.memory_analysis().temp_size_in_bytes < 4 * size


def test_a_nan_elsewhere_does_not_reach_the_task_that_is_asked():
    params = jnp.array([1.0, 2.0])

    def losses(p):
        z = p * 2.0
        return {"a": jnp.sum(z), "b": jnp.sum(jnp.log(z - 10.0))}

    tx = mtl.stale(mtl.unitary(2), num_tasks=2, decay=0.0)

    @jax.jit
    def step(state, active):
        _, lazy = mtl.lazy_task_grads(losses)(params)
        return tx.update(lazy, state, params, active=active)

    _, state = step(tx.init(params), None)
    rows = optax.tree.get(state, "averages")[0]
    assert rows.tolist() == [[2.0, 2.0], [0.0, 0.0]]
    update, state = step(state, jnp.array([True, False]))
    assert not jnp.any(update)  # the other was never seen
    assert jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(state.rows.averages))))


@pytest.mark.parametrize("shared", [True, False])
def test_a_nan_elsewhere_stays_there_in_networks_that_convolve(shared):
    """Which pull all tasks back at once on a CPU, where branches are slow."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    layout = ("NHWC", "HWIO", "NHWC")

    def convolved(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=layout
        )

    def losses(p):
        z = convolved(x, p["w"])
        own = convolved(z, p["v"]) if shared else convolved(2 * x, p["w"])
        bad = 0 * convolved(z, p["u"])
        return {"a": jnp.sum(own**2), "b": jnp.sum(jnp.sqrt(bad) / bad)}

    kernel = jnp.ones((3, 3, 2, 2)) / 9
    params = {"w": kernel, "v": kernel, "u": kernel}
    tx = mtl.stale(mtl.unitary(2), num_tasks=2, decay=0.0)

    @jax.jit
    def step(state):
        _, lazy = mtl.lazy_task_grads(losses)(params)
        return tx.update(lazy, state, params)[1]

    wanted = jax.grad(lambda p: losses(p)["a"])(params)
    rows = optax.tree.get(step(tx.init(params)), "averages")[0]
    for name, row in rows.items():
        np.testing.assert_allclose(row[0], wanted[name], rtol=1e-5, atol=1e-5)


def test_devices_and_seeds():
    """Inside shard_map the chosen row is the mean over devices; vmap runs all."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    params, _ = network(shared=True)
    x = jax.random.normal(jax.random.key(1), (16, LAYERS))

    def losses(p, x):
        z = jnp.tanh(x @ p["trunk"][0])
        return {t: jnp.mean((z @ h - int(t)) ** 2) for t, h in p["heads"].items()}

    tx = mtl.stale(mtl.cagrad(4), num_tasks=4, refresh=2)

    def step(params, state, x, axis_name=None):
        _, lazy = mtl.lazy_task_grads(losses, axis_name=axis_name)(params, x)
        return tx.update(lazy, state, params)

    P = jax.sharding.PartitionSpec
    sharded = jax.shard_map(
        lambda p, s, x: step(p, s, x, "data"),
        mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(),
    )  # fmt: skip
    one, many = (jax.jit(f) for f in (step, sharded))
    state = other = tx.init(params)
    lanes = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    seeds = jax.jit(jax.vmap(step, (None, 0, None)))
    for _ in range(4):
        update, state = one(params, state, x)
        same, other = many(params, other, x)
        both, lanes = seeds(params, lanes, x)
        for wanted, a, b in zip(
            *map(jax.tree.leaves, (update, same, both)), strict=True
        ):
            np.testing.assert_allclose(a, wanted, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(b[1], wanted, rtol=1e-4, atol=1e-6)
    assert any(jnp.any(x) for x in jax.tree.leaves(update))


def test_one_compilation_and_schedules():
    grads = stacks(2, 6)
    tx = mtl.stale(mtl.mgda(2), 2, decay=optax.linear_schedule(0.0, 0.5, 4))
    step, state = jax.jit(tx.update), tx.init(PARAMS)
    for g in grads:
        _, state = step(g, state, PARAMS)
    assert step._cache_size() == 1


def test_errors_name_cause_and_cure():
    with pytest.raises(ValueError, match="refresh=3 is more than the 2 tasks"):
        mtl.stale(mtl.mean(2), 2, refresh=3)
    with pytest.raises(ValueError, match="order must be one of"):
        mtl.stale(mtl.mean(2), 2, order="sorted")
    with pytest.raises(ValueError, match="stale takes a transformation"):
        mtl.stale(mtl.mgda.weighting(), 2)
    with pytest.raises(ValueError, match="variant must be one of"):
        mtl.mconfig(2, variant="both")
    tx = mtl.stale(mtl.mean(2), 2)
    with pytest.raises(ValueError, match="num_tasks=2"):
        tx.update(jnp.ones((3, 4)), tx.init(jnp.ones(4)), jnp.ones(4))
    scaled = mtl.stale(optax.chain(optax.scale(2.0), mtl.mean(2)), 2)
    with pytest.raises(ValueError, match="Put the method first"):
        scaled.update(jnp.ones((2, 4)), scaled.init(jnp.ones(4)), jnp.ones(4))


def test_check_chain_knows_them():
    mtl.check_chain(mtl.stale(optax.chain(mtl.mgda(2), optax.adam(1e-3)), 2), PARAMS, 2)
    good = optax.chain(mtl.mconfig(2), optax.scale_by_learning_rate(1e-3))
    mtl.check_chain(good, PARAMS, 2)
    mtl.check_chain(
        mtl.son_goku(optax.chain(mtl.mean(2), optax.adam(1e-3)), 2), PARAMS, 2
    )
    with pytest.raises(ValueError, match="already contains its optimiser"):
        mtl.check_chain(optax.chain(mtl.mconfig(2), optax.adam(1e-3)), PARAMS, 2)


@pytest.mark.parametrize("make", [mtl.stale, mtl.son_goku])
def test_adding_and_dropping_a_task(make):
    names = ("a", "b", "c")
    tx = make(mtl.mean(3), 3)
    grads = stacks(3, 4)
    _, state = run(tx, grads)
    fewer = mtl.resize_tasks(state, names, ("a", "c"))
    small = make(mtl.mean(2), 2)
    rows = jax.tree.map(lambda g: g[np.array([0, 2])], grads[0])
    _, after = small.update(rows, fewer, PARAMS)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, small.init(PARAMS))
    old, new = (optax.tree.get(s, "averages") for s in (state, fewer))
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        np.testing.assert_array_equal(a[np.array([0, 2])], b)


def after(tx, sizes):
    """The last update of one task in R^1 with gradients of these sizes."""
    state = tx.init(jnp.zeros(1))
    for size in sizes:
        update, state = tx.update(jnp.array([[size]]), state, jnp.zeros(1))
    return float(update[0])


def test_without_memory_nothing_is_left_of_what_was():
    """Neither the rounding of huge gradients, nor NaN."""
    last = mtl.stale(mtl.mean(1), 1, decay=0.0)
    assert after(last, [1e8, 1e-3]) == np.float32(1e-3)
    assert after(last, [np.nan, 2.0]) == 2.0
    sign = mtl.mconfig(1, beta1=0.0, beta2=0.0)
    np.testing.assert_allclose(after(sign, [1e8, 1e-3]), 1.0, rtol=1e-4)
    groups = mtl.son_goku(mtl.mean(1), 1, decay=0.0)
    _, state = groups.update(jnp.array([[jnp.nan]]), groups.init(jnp.zeros(1)))
    _, state = groups.update(jnp.array([[2.0]]), state)
    assert state.averages.tolist() == [[2.0]]


def test_a_decay_of_one_is_the_mean_and_none_is_larger():
    np.testing.assert_allclose(
        after(mtl.stale(mtl.mean(1), 1, decay=1.0), [1.0, 2.0, 6.0]), 3.0, rtol=1e-6
    )
    for make in mtl.stale, mtl.son_goku:
        with pytest.raises(ValueError, match=r"decay must be at most 1; got 1.5"):
            make(mtl.mean(2), 2, decay=1.5)
    with pytest.raises(ValueError, match=r"beta2 must be at least 0; got -0.5"):
        mtl.mconfig(2, beta2=-0.5)


def test_a_loss_that_was_never_seen_is_one():
    """As that of every missing task: no rule of losses divides by 0."""
    tx = mtl.stale(mtl.scale_invariant(2), 2, refresh=2, decay=0.0)
    grads, losses = jnp.ones((2, 1)), jnp.array([2.0, 4.0])
    _, state = tx.update(grads, tx.init(jnp.zeros(1)), losses=losses)
    update, _ = tx.update(grads, state, losses=losses, active=jnp.array([False, True]))
    np.testing.assert_allclose(update, [1 + 1 / 4])


def test_a_state_of_numpy_arrays_goes_on():
    """That of a checkpoint, outside jit."""
    grads = stacks(2, 3)
    for make in mtl.stale(mtl.mean(2), 2), mtl.son_goku(mtl.mean(2), 2):
        _, state = run(make, grads)
        wanted, _ = make.update(grads[0], state, PARAMS)
        found, _ = make.update(grads[0], jax.device_get(state), PARAMS)
        np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", ["cyclic", "random"])
@pytest.mark.parametrize("names", ["b", "ab", "bc", "0abc", "xyz"])
@pytest.mark.parametrize("refresh", [1, 2])
def test_who_is_due_comes_once_tasks_were_added_or_dropped(order, names, refresh):
    """Whoever loads a batch for these alone must not train on another."""

    def make(num_tasks):
        some = min(refresh, num_tasks)
        return mtl.stale(mtl.mean(num_tasks), num_tasks, refresh=some, order=order)

    state, grads = make(3).init(jnp.zeros(1)), jnp.ones((3, 1))
    for _ in range(2):
        _, state = make(3).update(grads, state)
    tx = make(len(names))
    state = mtl.resize_tasks(state, [*"abc"], [*names], fresh=tx.init(jnp.zeros(1)))
    for _ in range(4):
        due, before = (optax.tree.get(state, key) for key in ("due", "counts"))
        _, state = tx.update(jnp.ones((len(names), 1)), state)
        came = optax.tree.get(state, "counts") - before
        assert came.tolist() == due.tolist()
        assert sum(came) == min(refresh, len(names))
