"""Selective Task Group Updates: the specification's examples, and what must freeze."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mtl_optax as mtl
from mtl_optax.core.solvers.proximal_affinity import affinity_groups, proximal_affinity

T = 3
OWNER = {"trunk": None, "head": {"a": 0, "b": 1, "c": 2}}


def parameters():
    trunk = jax.random.normal(jax.random.key(0), (8, 4))
    heads = {name: 0.5 * jnp.ones(4) * (i + 1) for i, name in enumerate("abc")}
    return {"trunk": trunk, "head": heads}


def losses_fn(params):
    features = jnp.tanh(params["trunk"]).sum(axis=0) / 2
    goal = {"a": 1.0, "b": 1.2, "c": -1.0}
    return {
        name: jnp.mean((features * head - goal[name]) ** 2) + 0.1
        for name, head in params["head"].items()
    }


def method(inner=None, num_tasks=T, **options):
    options = {"owner": OWNER, "key": 0, **options}
    return mtl.selective_groups(num_tasks, inner or optax.sgd(0.1), **options)


@functools.partial(jax.jit, static_argnums=0)
def one_update(tx, params, state, extras):
    losses, grads = mtl.lazy_task_grads(losses_fn)(params)
    extras = {"losses": losses, "losses_fn": losses_fn, **extras}
    return tx.update(grads, state, params, **extras)


def run(tx, steps, params=None, state=None, **extras):
    """Parameters and state after some steps."""
    params = parameters() if params is None else params
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = one_update(tx, params, state, extras)
        params = optax.apply_updates(params, updates)
    return params, state


def masked_gradient(params, mask):
    weights = jnp.asarray(mask, float)
    return mtl.group_grads_at(losses_fn)(params, weights)[1]


# --- The affinity ---------------------------------------------------------------------


def scripted(sequence, slope=1.0):
    """Losses that follow a script, one entry a parameter value, all of one slope."""
    table = jnp.asarray(sequence)

    def losses_fn(params):
        here = jax.lax.stop_gradient(params)
        return table[jnp.round(here).astype(int)] + slope * (here - params)

    return losses_fn


@pytest.mark.parametrize(
    ("credit", "wanted"),
    [
        ("causal", [[1e-4, 5e-5], [0.0, 0.0]]),
        ("official", [[0.0, 0.0], [1e-4, 5e-5]]),
    ],
)
def test_example_of_the_specification(credit, wanted):
    # Each step moves the parameter by 1; the second group's step changes nothing.
    tx = mtl.selective_groups(2, optax.sgd(1.0), owner=None, credit=credit, key=0)
    params = jnp.zeros(())
    ask = scripted([[1.0, 2.0], [0.9, 1.9], [0.9, 1.9]])
    update, state = tx.update(
        *(jnp.zeros(2), tx.init(params), params),
        losses_fn=ask,
        order=jnp.array([0, 1]),
    )
    assert update == 2
    np.testing.assert_allclose(state.affinity, wanted, atol=1e-9)
    np.testing.assert_array_equal(state.losses, [1.0, 2.0])


def test_official_takes_the_step_of_an_only_group_twice():
    def one(credit, num_tasks, **options):
        tx = mtl.selective_groups(
            num_tasks, optax.sgd(1.0), owner=None, credit=credit, key=0, **options
        )
        params = jnp.zeros(())
        losses = jnp.array([[1.0, 2.0], [0.9, 1.8], [0.9, 1.8]])[:, :num_tasks]
        return tx.update(
            *(jnp.zeros(num_tasks), tx.init(params), params),
            losses_fn=scripted(losses, slope=1 / num_tasks),
        )

    together = {"warmup": 0, "preference": -1.0}
    for num_tasks, options in ((1, {}), (2, together)):
        once, causal = one("causal", num_tasks, **options)
        twice, official = one("official", num_tasks, **options)
        assert (once, twice) == (1, 2)
        # There its credit is right.
        np.testing.assert_allclose(official.affinity, causal.affinity)
    np.testing.assert_allclose(causal.affinity, np.full((2, 2), 5e-5), rtol=1e-4)


def plain_affinity(affinity, group, before, after, decay):
    """The authors' rules, entry by entry."""
    new = affinity.copy()
    change = (1 - after / before) / group.sum()
    for s in np.flatnonzero(group):
        for k in range(len(group)):
            credit = change[k]
            if before[k] <= 0 or (k == s and credit < 0):
                continue
            if group[k] and k != s:
                if before[s] <= 0:
                    continue
                if credit * change[s] < 0:
                    credit = -max(credit, change[s])
            new[s, k] = (1 - decay) * affinity[s, k] + decay * credit
    return new


@pytest.mark.parametrize("seed", range(20))
def test_sign_rules(seed):
    rng = np.random.default_rng(seed)
    affinity = rng.standard_normal((5, 5)).astype(np.float32)
    before = rng.uniform(-0.3, 2, 5).astype(np.float32)
    after = before + 0.3 * rng.standard_normal(5).astype(np.float32)
    after[0] = before[0]
    group = rng.random(5) < 0.6
    group[rng.integers(5)] = True
    got = proximal_affinity(*map(jnp.asarray, (affinity, group, before, after)), 0.1)
    wanted = plain_affinity(affinity, group, before, after, 0.1)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_losses_that_are_not_finite_are_not_measured():
    before = jnp.array([1.0, jnp.nan, 2.0])
    after = jnp.array([0.5, 1.0, jnp.inf])
    group = jnp.array([True, True, False])
    got = proximal_affinity(jnp.zeros((3, 3)), group, before, after, 1.0)
    np.testing.assert_array_equal(got, [[0.25, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_group_grads_at_drops_the_auxiliary_output():
    def with_aux(params, scale):
        return {name: scale * x for name, x in losses_fn(params).items()}, "aux"

    params, weights = parameters(), jnp.array([1.0, 0.0, 2.0])
    ask = mtl.group_grads_at(with_aux, 3.0, has_aux=True)
    losses, gradient = ask(params, weights)
    separate, stacked = mtl.task_grads(losses_fn)(params)
    np.testing.assert_allclose(losses, 3 * separate, rtol=1e-6)
    wanted = mtl.combine(stacked, 3 * weights)
    chex.assert_trees_all_close(gradient, wanted, rtol=1e-5)


def test_group_grads_at_averages_over_a_data_axis():
    def loss(params, x):
        return {"a": jnp.sum(params * x), "b": jnp.sum(params**2 * x)}

    def one(params, x):
        ask = mtl.group_grads_at(loss, x, axis_name="data")
        return ask(params, jnp.array([1.0, 2.0]))

    params, x = jnp.array([1.0, 2.0]), jnp.arange(8.0).reshape(4, 2)
    mapped = jax.vmap(one, in_axes=(None, 0), axis_name="data")(params, x)
    mean = jnp.mean(x, axis=0)
    losses, gradient = mtl.group_grads_at(loss, mean)(params, jnp.array([1.0, 2.0]))
    for mine, wanted in zip(mapped, (losses, gradient), strict=True):
        np.testing.assert_allclose(
            mine, jnp.broadcast_to(wanted, mine.shape), rtol=1e-6
        )


# --- The groups -----------------------------------------------------------------------

TOY = np.full((4, 4), 0.1, np.float32) + 0.9 * np.eye(4, dtype=np.float32)
TOY[[0, 1, 2, 3], [1, 0, 3, 2]] = 0.9, 0.9, 0.8, 0.8


def grouped(affinity, preference=None, ready=None, groups=None):
    affinity = jnp.asarray(affinity, float)
    index = jnp.arange(affinity.shape[0], dtype=jnp.int32)
    ready = index >= 0 if ready is None else jnp.asarray(ready)
    return affinity_groups(
        affinity, preference, ready, index if groups is None else groups
    )


def test_toy_of_the_specification():
    np.testing.assert_array_equal(grouped(TOY), [0, 0, 2, 2])
    # Columns count relative to their task's affinity for itself.
    scaled = TOY * np.array([1e-4, 1e-5, 1e-3, 1e-4])[None, :]
    np.testing.assert_array_equal(grouped(scaled), [0, 0, 2, 2])


@pytest.mark.parametrize("likeness", [-0.5, 0.0, 0.5, 0.999])
def test_two_tasks_never_merge_by_default(likeness):
    pair = np.array([[1.0, likeness], [likeness, 1.0]])
    np.testing.assert_array_equal(grouped(pair), [0, 1])
    np.testing.assert_array_equal(grouped(pair, preference=likeness - 0.1), [0, 0])


def test_groups_are_kept_where_there_is_no_answer():
    before = jnp.array([0, 0, 0, 3], jnp.int32)
    broken = jnp.asarray(TOY).at[0, 1].set(jnp.nan)
    np.testing.assert_array_equal(grouped(broken, groups=before), before)
    # A task that is not ready stays where it was; the others group among themselves.
    ready = [True, True, False, False]
    merged = grouped(TOY, -1.0, ready, jnp.array([0, 1, 2, 3], jnp.int32))
    np.testing.assert_array_equal(merged, [0, 0, 2, 3])


def test_tasks_group_after_their_warmup():
    tx = method(warmup=2, preference=-1e6)
    params, state = run(tx, 2)
    np.testing.assert_array_equal(state.groups, [0, 1, 2])
    params, state = run(tx, 1, params, state)
    np.testing.assert_array_equal(state.groups, [0, 0, 0])
    # Task 1 comes late.
    late = jnp.array([True, False, True])
    params, state = run(tx, 2, active=late)
    params, state = run(tx, 1, params, state)
    np.testing.assert_array_equal(state.groups, [0, 1, 0])
    np.testing.assert_array_equal(state.step, [3, 1, 3])


# --- The steps ------------------------------------------------------------------------


def test_one_group_is_one_step_on_the_sum():
    params = parameters()
    tx = method(warmup=0, preference=-1.0)
    update, _ = one_update(tx, params, tx.init(params), {})
    wanted = jax.tree.map(lambda g: -0.1 * g, masked_gradient(params, [1, 1, 1]))
    chex.assert_trees_all_close(update, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_groups_of_one_are_steps_in_turn(order):
    params = parameters()
    tx = method(optax.adam(0.1))
    moved, _ = run(tx, 1, order=jnp.array(order))
    state, wanted = optax.adam(0.1).init(params["trunk"]), params
    for task in order:
        gradient = masked_gradient(wanted, jnp.arange(T) == task)
        trunk, state = optax.adam(0.1).update(gradient["trunk"], state)
        name = "abc"[task]
        own = gradient["head"][name]
        head, _ = optax.adam(0.1).update(own, optax.adam(0.1).init(own))
        heads = wanted["head"] | {name: wanted["head"][name] + head}
        wanted = {"trunk": wanted["trunk"] + trunk, "head": heads}
    chex.assert_trees_all_close(moved, wanted, rtol=1e-5)


@pytest.mark.parametrize("inner", [optax.adamw(0.1), optax.sgd(0.1, momentum=0.9)])
def test_heads_of_absent_tasks_freeze_with_their_optimiser(inner):
    tx = method(inner)
    params, state = run(tx, 3)
    active = jnp.array([True, False, True])
    after, new = run(tx, 1, params, state, active=active)
    for name, task in (("a", 0), ("b", 1), ("c", 2)):
        assert (after["head"][name] != params["head"][name]).all() == active[task]
    ours = state.inner.inner_states["1"], new.inner.inner_states["1"]
    chex.assert_trees_all_equal(*ours)
    others = state.inner.inner_states["0"], new.inner.inner_states["0"]
    assert any(jax.tree.leaves(jax.tree.map(lambda x, y: (x != y).any(), *others)))
    np.testing.assert_array_equal(new.affinity[1], state.affinity[1])
    np.testing.assert_array_equal(new.affinity[:, 1], state.affinity[:, 1])
    assert new.losses[1] == state.losses[1]


def test_a_head_counts_its_own_steps_and_the_trunk_those_of_all_groups():
    _, state = run(method(optax.adam(0.1)), 4)
    counts = {
        name: optax.tree.get(part, "count")
        for name, part in state.inner.inner_states.items()
    }
    assert counts == {"shared": 12, "0": 4, "1": 4, "2": 4}


def test_active_tasks_get_what_they_get_alone():
    def two_losses(params):
        found = losses_fn(params)
        return {"a": found["a"], "c": found["c"]}

    params, tx = parameters(), method(optax.adam(0.1), warmup=2, decay=0.3)
    owner = {"trunk": None, "head": {"a": 0, "b": None, "c": 1}}
    alone = method(optax.adam(0.1), 2, owner=owner, warmup=2, decay=0.3)
    active = jnp.array([True, False, True])
    state, small, mine, theirs = tx.init(params), alone.init(params), params, params
    for _ in range(5):
        order = jnp.array([2, 1, 0])
        update, state = one_update(tx, mine, state, {"active": active, "order": order})
        mine = optax.apply_updates(mine, update)
        _, grads = mtl.lazy_task_grads(two_losses)(theirs)
        update, small = alone.update(
            *(grads, small, theirs), losses_fn=two_losses, order=jnp.array([1, 0])
        )
        theirs = optax.apply_updates(theirs, update)
    both = [t["trunk"] for t in (mine, theirs)]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)
    kept = np.array([0, 2])
    rows = state.affinity[kept][:, kept]
    np.testing.assert_allclose(rows, small.affinity, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(state.losses[kept], small.losses, rtol=1e-5)


@pytest.mark.parametrize("credit", ["causal", "official"])
def test_no_active_task_changes_nothing_but_the_key(credit):
    tx = method(optax.adam(0.1), credit=credit)
    params, state = run(tx, 2)
    update, new = one_update(tx, params, state, {"active": jnp.zeros(T, bool)})
    assert not any(x.any() for x in jax.tree.leaves(update))
    assert (new.key != state.key).any()
    chex.assert_trees_all_equal(new._replace(key=state.key), state)


def test_nan_loss_of_an_absent_task_does_no_harm():
    def broken(params):
        return losses_fn(params) | {"b": jnp.nan * jnp.ones(())}

    tx, params = method(), parameters()
    active = jnp.array([True, False, True])
    extras = {"active": active, "order": jnp.arange(T)}
    wanted, state = one_update(tx, params, tx.init(params), extras)
    stacked = jax.tree.map(lambda p: jnp.zeros((T, *p.shape)), params)
    got, new = tx.update(stacked, tx.init(params), params, losses_fn=broken, **extras)
    chex.assert_trees_all_close(got, wanted, rtol=1e-5)
    chex.assert_trees_all_close(new, state, rtol=1e-4, atol=1e-7)


# --- As an optax transformation -------------------------------------------------------


def trajectory(tx, params, steps=6):
    def body(carry, _):
        params, state = carry
        updates, state = one_update(tx, params, state, {})
        return (optax.apply_updates(params, updates), state), state.losses

    return lax.scan(body, (params, tx.init(params)), length=steps)


def test_scan_is_the_loop_and_trains():
    tx = method(optax.adam(0.05), warmup=3)
    params, state = run(tx, 6)
    (got, last), losses = jax.jit(functools.partial(trajectory, tx))(parameters())
    chex.assert_trees_all_close(got, params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(last, state)
    assert losses[-1].sum() < losses[0].sum()


def test_compiles_once():
    tx, params = method(optax.adam(0.1), warmup=1), parameters()

    @jax.jit
    @chex.assert_max_traces(1)
    def step(params, state):
        _, grads = mtl.lazy_task_grads(losses_fn)(params)
        updates, state = tx.update(grads, state, params, losses_fn=losses_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state)


def test_vmap_over_seeds_and_decay():
    params = parameters()

    def last(key, decay):
        tx = method(key=key, decay=decay, warmup=1)
        return trajectory(tx, params, steps=3)[0]

    seeds, decays = jnp.arange(3), jnp.array([0.1, 0.01, 0.5])
    got, states = jax.jit(jax.vmap(last))(seeds, decays)
    for i in range(3):
        alone, state = last(int(seeds[i]), float(decays[i]))
        mine = jax.tree.map(lambda x, i=i: x[i], (got, states.affinity))
        chex.assert_trees_all_close(mine, (alone, state.affinity), rtol=1e-4, atol=1e-6)


def test_order_is_random_and_the_key_decides_it():
    tx, params = method(), parameters()

    def first(key):
        state = tx.init(params)._replace(key=jax.random.key_data(jax.random.key(key)))
        return one_update(tx, params, state, {})[0]["trunk"]

    drawn = [first(key) for key in range(4)]
    own, _ = one_update(tx, params, tx.init(params), {})
    np.testing.assert_array_equal(drawn[0], own["trunk"])
    np.testing.assert_array_equal(drawn[0], first(0))
    assert any((x != drawn[0]).any() for x in drawn[1:])


def test_round_trip_through_orbax(tmp_path):
    tx = method(optax.adam(0.1), warmup=1)
    params, state = run(tx, 2)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", state)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "state", tx.init(params))
    chex.assert_trees_all_equal(restored, state)
    wanted = one_update(tx, params, state, {})
    chex.assert_trees_all_equal(one_update(tx, params, restored, {}), wanted)


def test_displacement_level_transformations_may_follow():
    tx = method(optax.adam(0.1))
    extras = {"order": jnp.arange(T)}
    params = parameters()
    whole, _ = one_update(tx, params, tx.init(params), extras)
    halved = optax.chain(tx, optax.scale(0.5))
    half, _ = one_update(halved, params, halved.init(params), extras)
    chex.assert_trees_all_close(jax.tree.map(lambda x: 2 * x, half), whole)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_sharded_parameters_stay_where_they_are(axis_type):
    tx, params = method(optax.adam(0.1), warmup=0), parameters()
    wanted, _ = one_update(tx, params, tx.init(params), {})
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    place = functools.partial(NamedSharding, mesh)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, place(PartitionSpec()))
        trunk = jax.device_put(params["trunk"], place(PartitionSpec("data")))
        sharded["trunk"] = trunk
        state = jax.jit(tx.init)(sharded)
        got, new = one_update(tx, sharded, state, {})
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(wanted), rtol=1e-4)
    assert got["trunk"].sharding.is_equivalent_to(trunk.sharding, 2)
    moments = optax.tree.get(new.inner.inner_states["shared"], "mu")["trunk"]
    assert moments.sharding.is_equivalent_to(trunk.sharding, 2)


def test_half_precision():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), parameters())
    tx = method(optax.adam(0.1))
    update, state = one_update(tx, params, tx.init(params), {})
    assert {x.dtype for x in jax.tree.leaves(update)} == {jnp.dtype(jnp.bfloat16)}
    assert state.losses.dtype == state.affinity.dtype == jnp.float32


def test_float64(x64):
    (_, state), _ = trajectory(method(optax.adam(0.1), warmup=1), parameters(), 2)
    assert state.affinity.dtype == jnp.float64
    assert state.groups.dtype == jnp.int32


@pytest.mark.optimized
def test_cost_is_a_pass_for_each_group_and_one_look():
    """Compiled FLOPs against a plain step; the incoming gradients are free."""
    width = 64
    params = {"trunk": jnp.ones((width, width)), "a": jnp.ones(width)}
    x = jnp.ones((32, width))

    def deep(params):
        h = jnp.tanh(jnp.tanh(x @ params["trunk"]) @ params["trunk"])
        return {"a": jnp.mean((h @ params["a"]) ** 2)}

    tx = mtl.selective_groups(1, optax.sgd(0.1), owner={"trunk": None, "a": 0}, key=0)

    def selective(params):
        _, grads = mtl.lazy_task_grads(deep)(params)
        return tx.update(grads, tx.init(params), params, losses_fn=deep)[0]

    def flops(step):
        cost = jax.jit(step).lower(params).compile().cost_analysis()
        return cost["flops"]

    ratio = flops(selective) / flops(jax.grad(lambda p: deep(p)["a"]))
    assert 1 < ratio < 1.6


# --- Errors, and check_chain ----------------------------------------------------------


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="credit must be one of"):
        method(credit="early")
    with pytest.raises(ValueError, match="decay must be at least 0"):
        method(decay=-1.0)
    with pytest.raises(ValueError, match="num_tasks must be a Python int"):
        method(num_tasks=2.0)
    params = parameters()
    with pytest.raises(ValueError, match="2 tasks are numbered from 0"):
        method(num_tasks=2).init(params)
    tx = method()
    stacked = jax.tree.map(lambda p: jnp.zeros((T, *p.shape)), params)
    state = tx.init(params)
    with pytest.raises(ValueError, match="losses_fn="):
        tx.update(stacked, state, params)
    with pytest.raises(ValueError, match="needs the extra argument params="):
        tx.update(stacked, state, losses_fn=losses_fn)
    with pytest.raises(ValueError, match="not stacked"):
        tx.update(params, state, params, losses_fn=losses_fn)
    with pytest.raises(ValueError, match="losses_fn= gave 2 losses for 3"):
        tx.update(stacked, state, params, losses_fn=lambda p: jnp.ones(2))


BEHIND = {
    "adam": optax.adam(1e-3),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "rmsprop": optax.rmsprop(1e-3),
    "adafactor": optax.adafactor(1e-3),
    "nested": optax.chain(optax.clip(1.0), optax.adam(1e-3)),
}
CHECKED = {"losses_fn": losses_fn}


@pytest.mark.parametrize("name", BEHIND)
def test_check_chain_finds_a_second_optimiser(name):
    first = method(optax.adam(1e-3))
    for tx in (
        optax.chain(first, BEHIND[name]),
        optax.chain(optax.chain(first, optax.scale(0.5)), BEHIND[name]),
    ):
        with pytest.raises(ValueError, match=r"contains its optimiser.*optax\.scale"):
            mtl.check_chain(tx, parameters(), T, **CHECKED)


@pytest.mark.parametrize(
    "after",
    [
        optax.scale(0.5),
        optax.scale_by_schedule(lambda count: 1 / (1 + count)),
        optax.clip_by_global_norm(1.0),
        optax.add_noise(0.01, 0.55, 0),
        optax.apply_if_finite(optax.scale(1.0), 5),
        optax.zero_nans(),
    ],
)
def test_check_chain_lets_displacements_pass(after):
    tx = optax.chain(method(optax.adam(1e-3)), after)
    mtl.check_chain(tx, parameters(), T, **CHECKED)
    # Nor does a method's own optimiser disturb, wherever the method stands.
    mtl.check_chain(optax.chain(optax.chain(tx)), parameters(), T, **CHECKED)
