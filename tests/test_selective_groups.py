"""Selective Task Group Updates: the specification's examples, and what must freeze."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from selective_runs import T, masked_gradient, method, one_update, run
from toy_losses import losses_fn, parameters

import mtl_optax as mtl


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
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
@pytest.mark.slow
def test_no_active_task_changes_nothing_but_the_key(credit):
    tx = method(optax.adam(0.1), credit=credit)
    params, state = run(tx, 2)
    update, new = one_update(tx, params, state, {"active": jnp.zeros(T, bool)})
    assert not any(x.any() for x in jax.tree.leaves(update))
    assert (new.key != state.key).any()
    chex.assert_trees_all_equal(new._replace(key=state.key), state)


@pytest.mark.slow
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
