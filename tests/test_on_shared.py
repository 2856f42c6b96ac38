"""The method on shared leaves, or on each group of leaves; the plain sum elsewhere."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl

T = 2
PARAMS = {
    "trunk": {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)},
    "a": jnp.ones(3),
    "z": jnp.ones(3),
}
MASK = {"trunk": {"w": True, "b": True}, "a": False, "z": False}


def two_losses(params, x):
    h = jnp.tanh(x @ params["trunk"]["w"] + params["trunk"]["b"][None, :])
    first = jnp.mean((h @ params["a"] - 1) ** 2)
    return {"a": first, "z": 30 * jnp.mean((h @ params["z"] + 1) ** 2)}


def gradients(lazy=False):
    x = jax.random.normal(jax.random.key(0), (8, 4))
    transform = mtl.lazy_task_grads if lazy else mtl.task_grads
    return transform(two_losses)(PARAMS, x)


def run(tx, lazy=False, **extra):
    losses, grads = gradients(lazy)
    return tx.update(grads, tx.init(PARAMS), PARAMS, losses=losses, **extra)


FORMS = {
    "mask": MASK,
    "prefix": {"trunk": True, "a": False, "z": False},
    "callable": lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: "trunk" in jax.tree_util.keystr(path), params
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.contract
def test_equals_partition_with_unitary_heads(form, lazy):
    partition = optax.partition(
        {True: mtl.mgda(T), False: mtl.unitary(T)}, jax.tree.map(bool, MASK)
    )
    expected, _ = run(partition)
    got, _ = run(mtl.on_shared(mtl.mgda(T), FORMS[form]), lazy)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_gramian_sees_shared_leaves_only(lazy):
    _, grads = gradients()
    _, state = run(mtl.on_shared(mtl.cagrad(T), MASK), lazy)
    np.testing.assert_allclose(
        state.task_gramian, mtl.gramian(grads["trunk"]), rtol=1e-5
    )


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("method", [mtl.imtl_g(T), mtl.uw(T)])
def test_rest_weights(lazy, method):
    got, state = run(mtl.on_shared(method, MASK, rest="weights"), lazy)
    weights = mtl.task_weights(state)
    _, grads = gradients()
    assert np.all(weights != 1), "else this could not tell weights from the sum"
    np.testing.assert_allclose(got["a"], weights[0] * grads["a"][0], rtol=1e-5)
    np.testing.assert_allclose(got["z"], weights[1] * grads["z"][1], rtol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("rest", ["sum", "weights"])
def test_inactive_tasks_do_not_move_their_heads(lazy, rest):
    tx = mtl.on_shared(mtl.cagrad(T), MASK, rest=rest)
    got, _ = run(tx, lazy, active=jnp.array([True, False]))
    assert jnp.any(got["a"] != 0)
    np.testing.assert_array_equal(got["z"], 0)


def test_around_a_chain_and_inside_one():
    around = mtl.on_shared(optax.chain(mtl.mgda(T), optax.scale(2.0)), MASK)
    inside = optax.chain(mtl.on_shared(mtl.mgda(T), MASK), optax.adam(1e-3))
    plain, _ = run(mtl.on_shared(mtl.mgda(T), MASK))
    doubled, _ = run(around)
    np.testing.assert_allclose(
        doubled["trunk"]["w"], 2 * plain["trunk"]["w"], rtol=1e-6
    )
    np.testing.assert_allclose(doubled["a"], plain["a"])
    chex.assert_trees_all_equal_shapes(run(inside)[0], PARAMS)


@pytest.mark.filterwarnings("ignore:shared= is True on every leaf")
def test_all_shared():
    mask = jax.tree.map(lambda _: True, PARAMS)
    expected, _ = run(mtl.mgda(T))
    for lazy in (False, True):
        got, _ = run(mtl.on_shared(mtl.mgda(T), mask), lazy)
        chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-7)


def test_scan_keeps_the_state():
    tx = optax.chain(mtl.on_shared(mtl.pcgrad(T, key=0), MASK), optax.adam(1e-2))
    x = jax.random.normal(jax.random.key(0), (8, 4))

    def step(carry, _):
        params, state = carry
        losses, grads = mtl.lazy_task_grads(two_losses)(params, x)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), jnp.sum(losses)

    _, losses = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), None, length=100)
    assert losses[-1] < 0.5 * losses[0]


def test_rest_weights_of_a_method_with_weights_per_leaf():
    tx = mtl.on_shared(mtl.pcgrad(T, key=0, granularity="leaf"), MASK, rest="weights")
    with pytest.raises(ValueError, match="no one vector for the rest"):
        run(tx)


def test_rest_leaves_are_guarded_too():
    _, grads = gradients()
    tx = mtl.on_shared(mtl.mgda(T), MASK)
    unstacked = {**grads, "a": grads["a"][0]}
    with pytest.raises(ValueError, match=r"\['a'\] of the task gradients has shape"):
        tx.update(unstacked, tx.init(PARAMS), PARAMS)


# --- labels ---------------------------------------------------------------------------

# Four tasks: trunk of all, mid of 0 and 1, side of 1, 2 and 3, one head each.
T4 = 4
NET = {
    "heads": [jnp.full(3, t + 1.0) for t in range(T4)],
    "mid": {"w": jnp.linspace(-1, 1, 9).reshape(3, 3), "b": jnp.zeros(3)},
    "side": jnp.cos(jnp.arange(9.0)).reshape(3, 3),
    "trunk": jnp.linspace(-0.7, 0.9, 12).reshape(4, 3),
}
LABELS = {
    "heads": [(t,) for t in range(T4)],
    "mid": (1, 0),
    "side": (1, 2, 3),
    "trunk": (0, 1, 2, 3),
}
SUBSETS = {"0,1": ("mid",), "0,1,2,3": ("trunk",), "1,2,3": ("side",)}
LABEL_FORMS = {
    "prefix": LABELS,
    "whole tree": {**LABELS, "mid": {"w": (0, 1), "b": (0, 1)}},
    "callable": lambda params: {key: LABELS[key] for key in params},
}
METHODS = {
    "cagrad": lambda num_tasks: mtl.cagrad(num_tasks),
    "mgda": lambda num_tasks: mtl.mgda(num_tasks),
    "upgrad": lambda num_tasks: mtl.upgrad(num_tasks),
    "uw": lambda num_tasks: mtl.uw(num_tasks),
    "graddrop": lambda num_tasks: mtl.graddrop(num_tasks, key=0),
}
BOTH = pytest.mark.parametrize("lazy", [False, True])


def net_losses(params, x):
    h = jnp.tanh(x @ params["trunk"])
    mid = jnp.tanh(h @ params["mid"]["w"] + params["mid"]["b"][None, :])
    side = jnp.tanh(h @ params["side"])
    reps = [mid, mid + side, side, side]
    targets = [1.0, -2.0, 3.0, -1.0]
    return tuple(
        jnp.mean((rep @ head - y) ** 2)
        for rep, head, y in zip(reps, params["heads"], targets, strict=True)
    )


def net_gradients(lazy=False, params=NET):
    x = jax.random.normal(jax.random.key(1), (8, 4))
    transform = mtl.lazy_task_grads if lazy else mtl.task_grads
    return transform(net_losses)(params, x)


def run_net(tx, lazy=False, **extra):
    losses, grads = net_gradients(lazy)
    return tx.update(grads, tx.init(NET), NET, losses=losses, **extra)


def rows_by_hand(make, tasks, keys, losses, grads):
    """The method for these tasks alone, on their rows of these leaves."""
    rows = jnp.array(tasks)
    part = jax.tree.map(lambda g: g[rows], {key: grads[key] for key in keys})
    tx = make(len(tasks))
    own = {key: NET[key] for key in keys}
    return tx.update(part, tx.init(own), own, losses=losses[rows])


@BOTH
@pytest.mark.parametrize("form", LABEL_FORMS)
@pytest.mark.slow
def test_labels_are_the_method_on_the_rows_of_each_subset(form, lazy):
    losses, grads = net_gradients()
    tx = mtl.on_shared(mtl.cagrad(T4), labels=LABEL_FORMS[form])
    got, state = run_net(tx, lazy)
    assert list(state) == list(SUBSETS)
    for name, keys in SUBSETS.items():
        tasks = [int(t) for t in name.split(",")]
        expected, inner = rows_by_hand(mtl.cagrad, tasks, keys, losses, grads)
        own = {key: got[key] for key in keys}
        chex.assert_trees_all_close(own, expected, rtol=1e-4, atol=1e-6)
        weights = np.zeros(T4)
        weights[tasks] = mtl.task_weights(inner)
        np.testing.assert_allclose(
            mtl.task_weights(state[name]), weights, rtol=1e-4, atol=1e-6
        )
    for t in range(T4):
        np.testing.assert_allclose(got["heads"][t], grads["heads"][t][t], rtol=1e-5)


# Each value of both once: a program of three groups takes seconds to compile.
@pytest.mark.parametrize(
    ("active", "lazy"), [(None, True), ((True, True, False, True), False)]
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_labels_equal_partition_with_static_active(method, active, lazy):
    """The step is jitted, and a given `active` is traced."""
    given = None if active is None else jnp.array(active)
    present = jnp.ones(T4, bool) if active is None else given
    losses, grads = net_gradients()
    expected = {}
    for name, keys in SUBSETS.items():
        part = {key: grads[key] for key in keys}
        own = {key: NET[key] for key in keys}
        tx = METHODS[method](T4)
        mask = present & jnp.array([str(t) in name for t in range(T4)])
        new, _ = tx.update(part, tx.init(own), own, losses=losses, active=mask)
        expected |= new
    expected["heads"] = [grads["heads"][t][t] * present[t] for t in range(T4)]
    tx = mtl.on_shared(METHODS[method](T4), labels=LABELS)
    got, _ = jax.jit(lambda given: run_net(tx, lazy, active=given))(given)
    chex.assert_trees_all_close(got, expected, rtol=2e-4, atol=1e-6)


@BOTH
@pytest.mark.slow
def test_a_mask_is_the_special_case_of_two_labels(lazy):
    labels = {"trunk": (0, 1), "a": (0,), "z": (1,)}
    mask, state = run(mtl.on_shared(mtl.mgda(T), MASK), lazy)
    got, states = run(mtl.on_shared(mtl.mgda(T), labels=labels), lazy)
    chex.assert_trees_all_equal(got, mask)
    chex.assert_trees_all_equal(states, {"0,1": state})


def test_labels_without_any_group():
    labels = {"trunk": (0,), "a": (0,), "z": (1,)}
    with pytest.raises(ValueError, match=r"labels= gives every leaf to a single task"):
        mtl.on_shared(mtl.mgda(T), labels=labels).init(PARAMS)


@pytest.mark.slow
def test_labels_keep_nan_of_inactive_tasks_away():
    losses, grads = net_gradients()
    broken = jax.tree.map(lambda g: g.at[2].set(jnp.nan), grads)
    tx = mtl.on_shared(mtl.cagrad(T4), labels=LABELS)
    active = jnp.array([True, True, False, True])
    clean = tx.update(grads, tx.init(NET), NET, losses=losses, active=active)
    got = tx.update(broken, tx.init(NET), NET, losses=losses, active=active)
    chex.assert_tree_all_finite(got)
    chex.assert_trees_all_equal(got, clean)
    # Not even passed as inactive: task 2 has no part in `mid`, by its label.
    got, _ = tx.update(broken, tx.init(NET), NET, losses=losses)
    chex.assert_tree_all_finite(got["mid"])


def test_labels_read_a_tuple_of_parameters_leaf_by_leaf():
    params = ({"w": jnp.ones(2)}, jnp.ones(3))
    grads = jax.tree.map(lambda p: jnp.stack([p, -2 * p]), params)
    tx = mtl.on_shared(mtl.mgda(2), labels=((0, 1), (0,)))
    _, state = tx.update(grads, tx.init(params), params)
    assert list(state) == ["0,1"]
    everywhere = mtl.on_shared(mtl.mgda(2), labels=(0, 1))
    state = everywhere.init(params)
    with pytest.warns(UserWarning, match="labels= names all tasks on every leaf"):
        got, _ = everywhere.update(grads, state, params)
    expected, _ = mtl.mgda(2).update(grads, mtl.mgda(2).init(params), params)
    chex.assert_trees_all_equal(got, expected)


@BOTH
@pytest.mark.parametrize("method", ["cagrad", "uw", "graddrop"])
@pytest.mark.slow
def test_labels_under_scan_keep_the_state(method, lazy):
    tx = optax.chain(
        mtl.on_shared(METHODS[method](T4), labels=LABELS), optax.adam(1e-2)
    )

    def step(carry, _):
        params, state = carry
        losses, grads = net_gradients(lazy, params)
        updates, state = tx.update(grads, state, params, losses=losses)
        return (optax.apply_updates(params, updates), state), jnp.sum(losses)

    _, losses = jax.lax.scan(step, (NET, tx.init(NET)), None, length=50)
    assert losses[-1] < 0.6 * losses[0]


@BOTH
@pytest.mark.slow
def test_labels_under_vmap(lazy):
    scales = jnp.array([1.0, 0.5])
    tx = mtl.on_shared(mtl.mgda(T4), labels=LABELS)

    def update(scale):
        params = jax.tree.map(lambda p: scale * p, NET)
        _, grads = net_gradients(lazy, params)
        return tx.update(grads, tx.init(params), params)[0]

    both = jax.jit(jax.vmap(update))(scales)
    one_by_one = [jax.jit(update)(scale) for scale in scales]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *one_by_one)
    chex.assert_trees_all_close(both, expected, rtol=1e-3, atol=1e-5)


def test_several_groups_have_several_weights():
    _, state = run_net(mtl.on_shared(mtl.cagrad(T4), labels=LABELS))
    with pytest.raises(ValueError, match=r"holds 3 values of task_weights.*0,1"):
        mtl.task_weights(state)


def test_check_chain_reads_labels():
    tx = mtl.on_shared(mtl.cagrad(T4), labels=LABELS)
    mtl.check_chain(optax.chain(tx, optax.adam(1e-3)), NET, T4)
    with pytest.raises(ValueError, match="check_chain: the state"):
        mtl.check_chain(optax.chain(optax.scale_by_adam(), tx), NET, T4)


def held(*parts):
    return optax.chain(mtl.cagrad(T), *parts)


# Labels of the same parameters, as MASK.
PAIRS = {"trunk": (0, 1), "a": (0,), "z": (1,)}
OPTIMISERS = {
    "adam": held(optax.adam(1e-3)),
    "momentum": held(optax.sgd(0.1, momentum=0.9)),
    "of some leaves": held(optax.masked(optax.adam(1e-3), MASK)),
    "nested": optax.chain(optax.chain(held(optax.adam(1e-3)))),
    "injected": optax.inject_hyperparams(lambda rate: held(optax.adam(rate)))(rate=0.1),
    "MultiSteps": held(optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()),
    "accumulated": mtl.accumulate_tasks(held(optax.lion(0.1)), T, 2),
    "its own": mtl.selective_groups(T, optax.sgd(0.1), owner=None, key=0),
}


@pytest.mark.parametrize("kind", [{"shared": MASK}, {"labels": PAIRS}])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_inside_raises_at_once(name, kind):
    """Heads would climb: what is inside gives a step, they keep their gradient."""
    tx = mtl.on_shared(OPTIMISERS[name], **kind)
    cure = (
        r"Put it behind: optax.chain\(mtl_optax.on_shared\(method, mask\), optax.adam"
    )
    with pytest.raises(ValueError, match=f"on_shared: the state .*optimiser.*{cure}"):
        jax.eval_shape(tx.init, PARAMS)


@pytest.mark.parametrize("tx", [optax.sgd(0.1), optax.scale_by_sign()])
def test_no_method_inside_raises(tx):
    with pytest.raises(ValueError, match="there is no method in it"):
        run(mtl.on_shared(tx, MASK))


def test_state_of_methods_is_none_of_an_optimiser():
    """Also where T and shapes of parameters agree, or a leaf is a scalar."""
    params = {"a": jnp.zeros(()), "b": jnp.zeros(T), "c": jnp.zeros((T, T))}
    kept = (mtl.moco(T), mtl.db_mtl(T), mtl.excess_mtl(T), mtl.uw(T), mtl.gradnorm(T))
    chains = [
        optax.chain(mtl.per_task(optax.trace(0.9), T), mtl.mean(T)),
        optax.chain(optax.identity(), mtl.per_task(optax.adam(0.1), T), mtl.mean(T)),
        optax.inject_hyperparams(mtl.cagrad, static_args=("num_tasks",))(T, c=0.4),
        optax.chain(mtl.mean(T), optax.scale_by_schedule(lambda count: 1.0)),
    ]
    for tx in (*kept, *chains):
        jax.eval_shape(mtl.on_shared(tx, dict.fromkeys(params, True)).init, params)


def test_exactly_one_of_mask_and_labels():
    with pytest.raises(ValueError, match=r"exactly one of shared= .*got neither"):
        mtl.on_shared(mtl.mgda(T))
    with pytest.raises(ValueError, match=r"exactly one of shared= .*got both"):
        mtl.on_shared(mtl.mgda(T), MASK, labels=LABELS)
    with pytest.raises(ValueError, match="each group of leaves has its own"):
        mtl.on_shared(mtl.mgda(T), labels=LABELS, rest="weights")


BAD_LABELS = {
    "an int": (0, "must be a tuple of one or more"),
    "a list": ([0, 1], "must be a tuple of one or more"),
    "a set": ({0, 1}, "must be a tuple of one or more"),
    "empty": ((), "must be a tuple of one or more"),
    "names": (("a", "b"), "by name, others an index"),
    "both": (("a", 1), "must be a tuple of one or more"),
    "a name twice": (("a", "a"), "names a task twice"),
    "bools": ((True, False), "must be a tuple of one or more"),
    "floats": ((0.0, 1.0), "must be a tuple of one or more"),
    "twice": ((0, 1, 0), "names a task twice"),
    "negative": ((-1, 0), "names a task that is not there"),
}


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_bad_labels_name_their_leaf(bad):
    label, message = BAD_LABELS[bad]
    tx = mtl.on_shared(mtl.mgda(T4), labels={**LABELS, "mid": label})
    with pytest.raises(ValueError, match=rf"leaf \['mid'\]\['b'\] has .*{message}"):
        tx.init(NET)


@BOTH
def test_a_label_beyond_the_tasks_names_its_leaf(lazy):
    tx = mtl.on_shared(mtl.mgda(T4), labels={**LABELS, "side": (1, 4)})
    with pytest.raises(
        ValueError, match=r"leaf \['side'\] has \(1, 4\).*4 tasks are numbered from 0"
    ):
        run_net(tx, lazy)
