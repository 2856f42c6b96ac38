"""Names on their way: through wrappers, subsets of leaves, owners, extra arguments."""

from types import MappingProxyType

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_optax as mtl

T = 3
NAMES = ("main", "task10", "task2")
PARAMS = {"trunk": jnp.array([1.0, -2.0]), **{n: jnp.array([0.5]) for n in NAMES}}
TARGETS = {"main": 1.0, "task2": -3.0, "task10": 0.3}
MASK = {"trunk": True, **dict.fromkeys(NAMES, False)}


def losses_fn(params):
    trunk = params["trunk"]
    return {
        name: jnp.sum((trunk * (1 + i) + params[name] - target) ** 2)
        for i, (name, target) in enumerate(TARGETS.items())
    }


def lazily(tx, **extras):
    """One step of lazy gradients, which have names."""
    _, grads = mtl.lazy_task_grads(losses_fn)(PARAMS)
    return tx.update(grads, tx.init(PARAMS), PARAMS, **extras)


def stacked(tx, **extras):
    """One step of stacked gradients, which have none."""
    _, grads = mtl.task_grads(losses_fn)(PARAMS)
    return tx.update(grads, tx.init(PARAMS), PARAMS, **extras)


def assert_same(got, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), got, wanted)


def skipping(tx):
    return mtl.skip_nonfinite_tasks(tx, T)


def accumulating(tx):
    return mtl.accumulate_tasks(tx, T, every_k=1)


def flat(tx):
    return mtl.flat_mtl(tx, rho_shared=0.1)


def lightly_flat(tx):
    return mtl.samo(tx, rho=0.1, key=0)


WRAPPERS = {
    "alone": lambda tx: tx,
    "on_shared": lambda tx: mtl.on_shared(tx, MASK),
    "on_shared labels": lambda tx: mtl.on_shared(
        tx, labels={n: "main" if n == "main" else NAMES for n in PARAMS}
    ),
    "accumulate_tasks": accumulating,
    "skip_nonfinite_tasks": skipping,
    "flat_mtl": flat,
    "samo": lightly_flat,
    "chain": lambda tx: optax.chain(tx, optax.scale(2.0)),
    "task_affinity": lambda tx: optax.chain(
        mtl.task_affinity(T, owner=None, learning_rate=0.1), tx
    ),
    "all": lambda tx: skipping(accumulating(mtl.on_shared(tx, MASK))),
}
EACH = pytest.mark.parametrize("name", WRAPPERS)


def asking(name):
    asking_again = name in ("flat_mtl", "samo", "task_affinity")
    return {"losses_fn": losses_fn} if asking_again else {}


@EACH
@pytest.mark.slow
def test_names_reach_the_method(name):
    wrap, more = WRAPPERS[name], asking(name)
    wanted, _ = lazily(wrap(mtl.pcd(T, primary=2)), **more)
    tx = wrap(mtl.pcd(T, primary="task2"))
    assert_same(jax.jit(lambda: lazily(tx, **more)[0])(), wanted)
    assert_same(stacked(tx, losses=losses_fn(PARAMS), **more)[0], wanted)
    assert_same(stacked(tx, active=dict.fromkeys(NAMES, True), **more)[0], wanted)


@EACH
@pytest.mark.parametrize("step", [lazily, stacked])
def test_differing_names_are_an_error_inside(name, step):
    tx = WRAPPERS[name](mtl.constant(T, weights={"main": 1.0, "task2": 1.0, "x": 0.1}))
    more = asking(name) | ({"losses": losses_fn(PARAMS)} if step is stacked else {})
    message = r"\['main', 'task2', 'x'\].*\['main', 'task10', 'task2'\]"
    with pytest.raises(ValueError, match=message):
        step(tx, **more)


@EACH
@pytest.mark.filterwarnings("ignore:labels= names all tasks on every leaf")
def test_without_names_there_is_nothing_to_compare(name):
    weights = {"main": 1.0, "task2": 1.0, "x": 0.1}
    given = WRAPPERS[name](mtl.constant(T, weights=weights))
    wanted = WRAPPERS[name](mtl.constant(T, weights=[1.0, 1.0, 0.1]))
    if name == "on_shared labels":
        given, wanted = (
            mtl.on_shared(mtl.constant(T, weights=w), labels=(0, 1, 2))
            for w in (weights, [1.0, 1.0, 0.1])
        )
    more = asking(name)
    if "losses_fn" in more:  # it has names of its own
        more["losses_fn"] = lambda p: tuple(losses_fn(p)[n] for n in NAMES)
    assert_same(stacked(given, **more)[0], stacked(wanted, **more)[0])


def test_lazy_gradients_bring_names():
    _, grads = mtl.lazy_task_grads(losses_fn)(PARAMS)
    assert mtl.task_names(grads) == NAMES
    tx = mtl.constant(T, weights={"main": 1.0, "task2": 1.0, "x": 1.0})
    with pytest.raises(ValueError, match="named differently"):
        tx.update(grads, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("form", [MappingProxyType, flax.core.freeze])
def test_any_mapping_is_a_dict(form):
    tx = mtl.constant(T, weights=form(TARGETS))
    wanted, _ = stacked(mtl.constant(T, weights=[1.0, 0.3, -3.0]))
    assert_same(lazily(tx, active=form(dict.fromkeys(NAMES, True)))[0], wanted)


@pytest.mark.parametrize("step", [lazily, stacked])
def test_active_by_name(step):
    tx = mtl.cagrad(T)
    wanted, _ = step(tx, active=jnp.array([True, False, True]))
    got, _ = step(tx, active={"task2": True, "task10": False, "main": True})
    assert_same(got, wanted)
    # Of values that are traced in part.
    got = jax.jit(
        lambda here: step(tx, active={"main": True, "task2": here, "task10": ~here})[0]
    )(jnp.array(True))
    assert_same(got, wanted)


@pytest.mark.parametrize(
    ("active", "says"),
    [
        ({"main": True, "task2": True}, "named differently"),
        ({"main": True, "task2": True, "x": True}, "named differently"),
        ({"main": 1, "task2": 0, "task10": 1}, "boolean vector"),
        ({"main": True, "task2": True, "task10": None}, "must be one value"),
        ({"main": True, "task2": True, 1: True}, "do not sort"),
        ({}, "empty dict"),
    ],
)
def test_active_says_what_is_wrong(active, says):
    with pytest.raises(ValueError, match=says):
        lazily(mtl.mean(T), active=active)


def test_extra_arguments_by_name():
    now, before = losses_fn(PARAMS), {"main": 3.0, "task2": 1.0, "task10": 2.0}
    tx = mtl.famo(T)
    _, start = lazily(tx)
    states = [
        tx.update(mtl.task_grads(losses_fn)(PARAMS)[1], start, PARAMS, **extras)[1]
        for extras in (
            {"losses": now, "previous_losses": before},
            {"losses": now, "previous_losses": [3.0, 2.0, 1.0]},
        )
    ]
    assert_same(*states)
    with pytest.raises(ValueError, match="named differently"):
        lazily(tx, previous_losses={"a": 1.0, "b": 1.0, "c": 1.0})
    tx = mtl.rlw(T, key=0)
    assert_same(
        lazily(tx, normals={"task2": 1.0, "task10": 0.5, "main": 0.2}),
        lazily(tx, normals=jnp.array([0.2, 0.5, 1.0])),
    )
    _, grads = mtl.lazy_task_grads(losses_fn)(PARAMS)
    assert_same(mtl.combine(grads, TARGETS), mtl.combine(grads, [1.0, 0.3, -3.0]))
    with pytest.raises(ValueError, match="named differently"):
        mtl.combine(grads, {"a": 1.0, "b": 1.0, "c": 1.0})


def test_check_chain_takes_names_in_the_losses_or_makes_some_up():
    tx = optax.chain(mtl.pcd(T, primary="main"), optax.adam(1e-3))
    mtl.check_chain(tx, PARAMS, T, losses=losses_fn(PARAMS))
    mtl.check_chain(tx, PARAMS, T)
    with pytest.raises(ValueError, match="none of the tasks"):
        mtl.check_chain(tx, PARAMS, T, losses={"a": 1.0, "b": 1.0, "c": 1.0})


# --- labels= and owner= ---------------------------------------------------------------

LABELS = {
    "trunk": ("task2", "main"),
    "main": "main",
    "task10": ("task10",),
    "task2": ("main", "task10", "task2"),
}
BY_INDEX = {"trunk": (0, 2), "main": (0,), "task10": (1,), "task2": (0, 1, 2)}


@pytest.mark.parametrize("step", [lazily, stacked])
def test_labels_by_name(step):
    got, state = step(mtl.on_shared(mtl.cagrad(T), labels=LABELS))
    wanted, same = step(mtl.on_shared(mtl.cagrad(T), labels=BY_INDEX))
    assert_same(got, wanted)
    assert list(state) == ["main,task10,task2", "main,task2"]
    for name, index in zip(state, same, strict=True):
        assert_same(state[name], same[index])


def test_a_method_of_a_subset_takes_values_of_all():
    tx = mtl.on_shared(mtl.constant(T, weights=TARGETS), labels=LABELS)
    _, state = lazily(tx)
    np.testing.assert_allclose(
        mtl.task_weights(state["main,task2"]), [1.0, 0.0, -3.0], rtol=1e-6
    )


def test_labels_that_do_not_name_all_need_names():
    labels = {"trunk": ("main", "task2"), **dict.fromkeys(NAMES, "main")}
    tx = mtl.on_shared(mtl.mgda(T), labels=labels)
    lazily(tx)
    stacked(tx, losses=losses_fn(PARAMS))
    with pytest.raises(ValueError, match=r"2 of 3 tasks, \['main', 'task2'\]"):
        stacked(tx)
    tx = mtl.on_shared(mtl.mgda(T), labels={**labels, "task2": "x"})
    message = r"\['main', 'task2', 'x'\].*\['main', 'task10', 'task2'\]"
    with pytest.raises(ValueError, match=message):
        lazily(tx)


OWNER = {"trunk": None, **{n: n for n in NAMES}}
OWNER_BY_INDEX = {"trunk": None, "main": 0, "task10": 1, "task2": 2}


def strengths(params, statistics):
    return {"trunk": jnp.arange(6.0).reshape(T, 2), **dict.fromkeys(NAMES)}


ASKING = {
    "selective_groups": lambda owner: mtl.selective_groups(
        T, optax.adam(0.1), owner=owner, key=0
    ),
    "cso": lambda owner: mtl.cso(
        T, optax.adam(0.1), strength_fn=strengths, total_epochs=2, owner=owner, key=0
    ),
    "task_affinity": lambda owner: mtl.task_affinity(T, owner=owner, learning_rate=0.1),
}


@pytest.mark.parametrize("step", [lazily, stacked])
@pytest.mark.parametrize("method", ASKING)
@pytest.mark.slow
def test_owners_by_name(method, step):
    active = jnp.array([True, False, True])
    more = {"losses_fn": losses_fn, "active": active}
    more |= {"epoch": 0} if method == "cso" else {}
    got, state = step(ASKING[method](OWNER), **more)
    wanted, same = step(ASKING[method](OWNER_BY_INDEX), **more)
    if method == "task_affinity":
        assert_same(state, same)
    else:
        assert_same(got, wanted)
        parts = dict(zip([*NAMES, "shared"], ["0", "1", "2", "shared"], strict=True))
        assert set(state.inner.inner_states) == set(parts)
        for name, index in parts.items():
            one, other = (s.inner.inner_states for s in (state, same))
            assert_same(jax.tree.leaves(one[name]), jax.tree.leaves(other[index]))
        count = optax.tree.get(state.inner.inner_states["task10"], "count")
        assert int(count) == 0  # that of a task that was not there rests
        assert_same(jax.tree.leaves(got["task10"]), [jnp.zeros(1)])
    with pytest.raises(ValueError, match=r"'x'.*\['main', 'task10', 'task2'\]"):
        lazily(ASKING[method]({**OWNER, "task2": "x"}), **more)


@pytest.mark.slow
def test_a_task_may_be_called_shared():
    params = {"trunk": jnp.array(1.0), "head": jnp.array(0.5)}

    def two(p):
        return {"shared": (p["trunk"] + p["head"]) ** 2, "b": p["trunk"] ** 4}

    def run(owner):
        tx = mtl.selective_groups(2, optax.adam(0.1), owner=owner, key=0)
        _, grads = mtl.lazy_task_grads(two)(params)
        more = {"losses_fn": two, "active": jnp.array([True, False])}
        return tx.update(grads, tx.init(params), params, **more)[0]

    got = run({"trunk": None, "head": "shared"})
    assert_same(got, run({"trunk": None, "head": 1}))
    assert float(got["head"]) == 0
