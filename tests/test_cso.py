"""CSO: the specification's example, its two phases, and what must freeze."""

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
from toy_losses import OWNER, losses_fn, parameters

import mtl_optax as mtl

T, C = 3, 4
TURNS, TOGETHER = {"epoch": 5, "uniform": 0.5}, {"epoch": 5, "uniform": 0.49}
# Which task is first: 0, 2, 2, 0; task 1 is nowhere.
STRENGTHS = jnp.array([[4.0, 1, 2, 9], [1, 2, 3, 4], [2, 5, 6, 7]])


def given(params, strengths):
    return {"trunk": strengths, "head": None}


def method(inner=None, num_tasks=T, **options):
    options = {"strength_fn": given, "total_epochs": 10, "key": 0} | options
    return mtl.cso(num_tasks, inner or optax.sgd(0.1), **options)


@functools.partial(jax.jit, static_argnums=0)
def one_update(tx, params, state, extras):
    _, grads = mtl.lazy_task_grads(losses_fn)(params)
    extras = {"statistics": STRENGTHS} | extras
    return tx.update(grads, state, params, losses_fn=losses_fn, **extras)


def masked_gradient(params, mask):
    return mtl.group_grads_at(losses_fn)(params, jnp.asarray(mask, float))[1]


def zeros_like_stack(params, num_tasks=T):
    return jax.tree.map(lambda p: jnp.zeros((num_tasks, *p.shape)), params)


# --- Strengths ------------------------------------------------------------------------

SCALES = jnp.array([[1.0, 1.0], [2.0, 0.5]])
KERNEL = jnp.array([[1.0, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize("shape", [(2, 2), (1, 1, 2, 2)])
def test_strengths_of_the_specification(shape):
    """A convolution, and our extension to dense layers, for which it is the same."""
    kernel = KERNEL.reshape(shape)
    got = mtl.connection_strength(kernel, SCALES, jnp.ones((2, 2)))
    np.testing.assert_allclose(got, [[0.2, 0.8], [0.8, 0.2]], rtol=1e-6)
    rows = mtl.connection_strength(kernel, tuple(SCALES), tuple(jnp.ones((2, 2))))
    np.testing.assert_array_equal(rows, got)


def test_strengths_are_the_squared_norms_of_what_passes():
    """Entry by entry, with unlike variances, over all positions and inputs."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 5))
    scales, variances = rng.normal(size=(2, 5)), rng.uniform(0.1, 2, (2, 5))
    wanted = np.zeros((2, 5))
    for t in range(2):
        for p in range(5):
            passed = kernel[..., p] * scales[t, p] / np.sqrt(variances[t, p] + 1e-5)
            wanted[t, p] = np.mean(passed**2)
    wanted /= wanted.sum(axis=1)[:, None]
    got = mtl.connection_strength(*map(jnp.asarray, (kernel, scales, variances)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    none = mtl.connection_strength(jnp.asarray(kernel), jnp.zeros((2, 5)), variances)
    np.testing.assert_array_equal(none, 0)


def test_strengths_want_a_row_a_task_and_an_entry_a_channel():
    for scales in (jnp.ones(2), jnp.ones((2, 3))):
        with pytest.raises(ValueError, match=r"one row a task.*\(T, 2\)"):
            mtl.connection_strength(KERNEL, scales, scales)


# --- The phases -----------------------------------------------------------------------


def test_example_of_the_specification():
    """Strengths decide, and the update is SGD on the projected sum."""
    grads = jnp.array([[[1.0, 1], [0, 0]], [[-1.0, -1], [1, -1]]])
    tx = mtl.cso(
        2,
        optax.sgd(1.0),
        strength_fn=lambda kernel, variances: mtl.connection_strength(
            kernel, SCALES, variances
        ),
        total_epochs=1,
        key=0,
    )
    update, state = tx.update(
        *(grads, tx.init(KERNEL), KERNEL),
        losses_fn=lambda p: jnp.ones(2),
        statistics=jnp.ones((2, 2)),
        epoch=1,
    )
    assert state.phase == 2
    np.testing.assert_allclose(-update.T, [[-0.5, 1.5], [1, -1]], rtol=1e-6)


def test_turns_are_steps_of_each_task_one_after_the_other():
    tx, params = method(), parameters()
    update, state = one_update(tx, params, tx.init(params), TURNS)
    there = params
    for mask in np.eye(T):
        gradient = masked_gradient(there, mask)
        there = jax.tree.map(lambda p, g: p - 0.1 * g, there, gradient)
    wanted = jax.tree.map(jnp.subtract, there, params)
    chex.assert_trees_all_close(update, wanted, rtol=1e-5, atol=1e-6)
    assert state.phase == 1


@pytest.mark.slow
def test_together_is_one_step_on_what_respects_the_first_tasks():
    inner = optax.adam(0.1)
    tx, params = method(inner), parameters()
    update, state = one_update(tx, params, tx.init(params), TOGETHER)
    _, stacked = mtl.task_grads(losses_fn)(params)
    priority = {"trunk": jnp.array([0, 2, 2, 0]), "head": None}
    gradient, _ = mtl.cso_project(T, priority).update(stacked, (), params)
    wanted, _ = inner.update(gradient, inner.init(params), params)
    chex.assert_trees_all_close(update, wanted, rtol=1e-5, atol=1e-6)
    plain = jax.tree.map(lambda g: g.sum(axis=0), stacked)
    assert np.abs(gradient["trunk"] - plain["trunk"]).max() > 1e-3
    assert state.phase == 2


def test_the_second_phase_becomes_likelier():
    tx = method()
    params = parameters()

    def phases(epoch):
        def body(state, _):
            _, grads = mtl.lazy_task_grads(losses_fn)(params)
            extras = {"epoch": epoch, "statistics": STRENGTHS, "losses_fn": losses_fn}
            _, state = tx.update(grads, state, params, **extras)
            return state, state.phase

        return lax.scan(body, tx.init(params), length=400)[1]

    drawn = jax.jit(jax.vmap(phases))(jnp.array([0, 3, 10]))
    share = np.mean(drawn == 2, axis=1)
    assert share[0] == 0
    assert abs(share[1] - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5
    assert share[2] == 1
    assert set(np.unique(drawn)) == {1, 2}


def test_one_task_takes_one_step_in_either_phase():
    params = {"trunk": parameters()["trunk"]}

    def alone(p):
        return {"a": jnp.sum(p["trunk"] ** 2)}

    tx = mtl.cso(
        1, optax.sgd(0.1), strength_fn=lambda p, s: None, total_epochs=10, key=0
    )
    for extras in (TURNS, TOGETHER):
        _, grads = mtl.lazy_task_grads(alone)(params)
        update, _ = tx.update(
            *(grads, tx.init(params), params),
            losses_fn=alone,
            **extras,
        )
        np.testing.assert_allclose(update["trunk"], -0.2 * params["trunk"], rtol=1e-6)


# --- What freezes ---------------------------------------------------------------------


@pytest.mark.parametrize("extras", [TURNS, TOGETHER], ids=["turns", "together"])
def test_heads_of_absent_tasks_freeze_with_their_optimiser(extras):
    tx, params = method(optax.adam(0.1), owner=OWNER), parameters()
    _, state = one_update(tx, params, tx.init(params), extras)
    active = jnp.array([True, False, True])
    update, new = one_update(tx, params, state, extras | {"active": active})
    assert not update["head"]["b"].any()
    frozen = "1"
    chex.assert_trees_all_equal(
        new.inner.inner_states[frozen], state.inner.inner_states[frozen]
    )
    for name in ("a", "c"):
        assert update["head"][name].all()


def test_a_head_moves_in_its_own_turn_only():
    """With an owner its optimiser counts one step, that of the trunk one a turn."""
    tx, params = method(optax.adam(0.1), owner=OWNER), parameters()
    _, state = one_update(tx, params, tx.init(params), TURNS)
    counts = {
        name: int(optax.tree.get(inner, "count"))
        for name, inner in state.inner.inner_states.items()
    }
    assert counts == {"shared": T, "0": 1, "1": 1, "2": 1}


@pytest.mark.parametrize("extras", [TURNS, TOGETHER], ids=["turns", "together"])
def test_active_tasks_get_what_they_get_alone(extras):
    """A channel's first task is that among those present."""
    kept = [1, 2]
    names = ["b", "c"]

    def part(params):
        losses = losses_fn(params)
        return {name: losses[name] for name in names}

    def broken(params):
        return losses_fn(params) | {"a": jnp.nan * jnp.ones(())}

    params, active = parameters(), jnp.array([False, True, True])
    tx, alone = method(), method(num_tasks=2)
    _, stacked = mtl.task_grads(losses_fn)(params)
    stacked = jax.tree.map(lambda g: g.at[0].set(jnp.nan), stacked)
    got, _ = tx.update(
        *(stacked, tx.init(params), params),
        losses_fn=broken,
        active=active,
        statistics=STRENGTHS.at[0].set(jnp.nan),
        **extras,
    )
    _, stacked = mtl.task_grads(part)(params)
    wanted, _ = alone.update(
        *(stacked, alone.init(params), params),
        losses_fn=part,
        statistics=STRENGTHS[jnp.array(kept)],
        **extras,
    )
    chex.assert_trees_all_close(got, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("extras", [TURNS, TOGETHER], ids=["turns", "together"])
def test_no_active_task_changes_nothing_but_the_key(extras):
    tx, params = method(optax.adam(0.1), owner=OWNER), parameters()
    _, state = one_update(tx, params, tx.init(params), extras)
    nobody = extras | {"active": jnp.zeros(T, bool)}
    update, new = one_update(tx, params, state, nobody)
    assert not any(x.any() for x in jax.tree.leaves(update))
    assert (new.key != state.key).any()
    chex.assert_trees_all_equal(new._replace(key=state.key), state)


# --- As an optax transformation -------------------------------------------------------


def trajectory(tx, steps=6):
    params = parameters()

    def body(carry, step):
        params, state = carry
        extras = {"epoch": step, "statistics": STRENGTHS}
        losses, grads = mtl.lazy_task_grads(losses_fn)(params)
        more = {"losses_fn": losses_fn, **extras}
        updates, state = tx.update(grads, state, params, **more)
        params = optax.apply_updates(params, updates)
        return (params, state), (losses, state.phase)

    return lax.scan(body, (params, tx.init(params)), jnp.arange(steps))


def test_scan_keeps_the_types_and_trains_in_both_phases():
    tx = method(optax.adam(0.02), total_epochs=80, owner=OWNER)
    (_, state), (losses, phases) = jax.jit(lambda: trajectory(tx, 80))()
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(parameters()))
    assert losses[-1].sum() < 0.5 * losses[0].sum()
    assert {1, 2} <= set(phases.tolist())


def test_vmap_over_seeds_and_epochs():
    def last(key, total_epochs):
        return trajectory(method(key=key, total_epochs=total_epochs), steps=4)

    keys, totals = jnp.arange(3), jnp.array([4.0, 8.0, 2.0])
    got = jax.jit(jax.vmap(last))(keys, totals)
    plain = jax.jit(last)
    for i in range(3):
        mine = jax.tree.map(lambda x, i=i: x[i], got)
        chex.assert_trees_all_close(mine, plain(keys[i], totals[i]), rtol=1e-4)


def test_compiles_once():
    tx, params = method(), parameters()
    state, before = tx.init(params), one_update._cache_size()
    for epoch in range(3):
        _, state = one_update(tx, params, state, {"epoch": epoch})
    assert one_update._cache_size() == before + 1


def test_round_trip_through_orbax(tmp_path):
    tx, params = method(optax.adam(0.1), owner=OWNER), parameters()
    _, state = one_update(tx, params, tx.init(params), TURNS)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", state)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "state", tx.init(params))
    chex.assert_trees_all_equal(restored, state)
    wanted = one_update(tx, params, state, TURNS)
    chex.assert_trees_all_equal(one_update(tx, params, restored, TURNS), wanted)


@pytest.mark.parametrize("extras", [TURNS, TOGETHER], ids=["turns", "together"])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.slow
def test_sharded_parameters_stay_where_they_are(axis_type, extras):
    tx, params = method(optax.adam(0.1)), parameters()
    wanted, _ = one_update(tx, params, tx.init(params), extras)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    place = functools.partial(NamedSharding, mesh)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, place(PartitionSpec()))
        trunk = jax.device_put(params["trunk"], place(PartitionSpec("data")))
        sharded["trunk"] = trunk
        got, new = one_update(tx, sharded, jax.jit(tx.init)(sharded), extras)
    chex.assert_trees_all_close(
        jax.device_get(got), jax.device_get(wanted), rtol=1e-4, atol=1e-6
    )
    assert got["trunk"].sharding.is_equivalent_to(trunk.sharding, 2)
    moments = optax.tree.get(new.inner.inner_states["shared"], "mu")["trunk"]
    assert moments.sharding.is_equivalent_to(trunk.sharding, 2)


@pytest.mark.parametrize("extras", [TURNS, TOGETHER], ids=["turns", "together"])
def test_half_precision(extras):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), parameters())
    tx = method(optax.adam(0.1))
    update, state = one_update(tx, params, tx.init(params), extras)
    assert {x.dtype for x in jax.tree.leaves(update)} == {jnp.dtype(jnp.bfloat16)}
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))


def test_float64(x64):
    tx = method(optax.adam(0.1))
    (params, state), _ = trajectory(tx, 3)
    assert params["trunk"].dtype == jnp.float64
    assert state.phase.dtype == jnp.int32


# --- Errors, and check_chain ----------------------------------------------------------


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="total_epochs must be positive"):
        method(total_epochs=0)
    with pytest.raises(ValueError, match="num_tasks must be a Python int"):
        method(num_tasks=2.0)
    params = parameters()
    tx, stacked = method(), zeros_like_stack(params)
    state = tx.init(params)
    complete = {"losses_fn": losses_fn, "epoch": 10, "statistics": STRENGTHS}
    for name in ("losses_fn", "epoch"):
        rest = {k: v for k, v in complete.items() if k != name}
        with pytest.raises(ValueError, match=f"cso needs the extra argument {name}="):
            tx.update(stacked, state, params, **rest)
    with pytest.raises(ValueError, match="cso needs the extra argument params="):
        tx.update(stacked, state, **complete)
    with pytest.raises(ValueError, match="not stacked"):
        tx.update(params, state, params, **complete)
    with pytest.raises(ValueError, match=r"strength_fn must give.*\(3, C\)"):
        tx.update(stacked, state, params, **complete | {"statistics": jnp.ones(C)})
    wrong = {"losses_fn": lambda p: jnp.ones(2)}
    with pytest.raises(ValueError, match="cso: losses_fn= gave 2 losses for 3"):
        tx.update(stacked, state, params, **complete | wrong)


def test_check_chain_knows_that_it_contains_its_optimiser():
    extras = {"epoch": 0, "statistics": STRENGTHS}
    extras["losses_fn"] = losses_fn
    first = method(optax.adam(1e-3))
    params = parameters()
    mtl.check_chain(optax.chain(first, optax.scale(0.5)), params, T, **extras)
    with pytest.raises(ValueError, match=r"contains its optimiser.*mtl_optax\.cso"):
        mtl.check_chain(optax.chain(first, optax.adam(1e-3)), params, T, **extras)


def test_empty_tree_gives_an_empty_tree():
    tx = method(strength_fn=lambda p, s: None)
    extras = {"losses_fn": lambda p: jnp.ones(T), "epoch": 0}
    update, _ = tx.update({}, tx.init({}), {}, **extras)
    assert update == {}
