"""Selective Task Group Updates as an optax transformation, and its errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from selective_runs import T, method, one_update, run, trajectory
from toy_losses import losses_fn, parameters, wide_losses

import mtl_optax as mtl


@pytest.mark.slow
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


@pytest.mark.slow
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
@pytest.mark.slow
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

    deep = functools.partial(wide_losses, x=x)
    tx = mtl.selective_groups(1, optax.sgd(0.1), owner={"trunk": None, "a": 0}, key=0)

    def selective(params):
        _, grads = mtl.lazy_task_grads(deep)(params)
        return tx.update(grads, tx.init(params), params, losses_fn=deep)[0]

    def flops(step):
        cost = jax.jit(step).lower(params).compile().cost_analysis()
        return cost["flops"]

    ratio = flops(selective) / flops(jax.grad(lambda p: deep(p)["a"]))
    assert 1 < ratio < 1.6


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
