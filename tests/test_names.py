"""Values by name: a dict is what its values in sorted order of names are."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods import METHODS

import mtl_optax as mtl
from mtl_optax.core.arguments.names import PerTask

# Not in this order: sorted, as text, "task10" comes before "task2".
NAMES = ("task2", "task10", "main")
SORTED = ("main", "task10", "task2")
T = 3
VALUES = jnp.array([0.3, 0.5, 0.2])  # in sorted order
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
STACKED = {
    "w": jnp.array([[1.0, 0.5], [-1.0, 1.0], [0.3, -2.0]]),
    "b": jnp.array([0.1, 0.2, -0.4]),
}
PER_TASK = [
    pytest.param(method, key, id=f"{method.name}-{key}")
    for method in METHODS
    for key, argument in inspect.signature(method.factory).parameters.items()
    if argument.annotation == PerTask
]
EACH = pytest.mark.parametrize(("method", "key"), PER_TASK)


def by_name(values=VALUES):
    return {name: values[SORTED.index(name)] for name in NAMES}


def test_every_family_has_values_for_each_task():
    assert {method.family for method, *_ in (p.values for p in PER_TASK)} >= {
        "losses",
        "gramian",
    }


@EACH
@pytest.mark.slow
def test_a_dict_is_its_values_in_sorted_order(method, key):
    extras = method.extras(T, PARAMS)

    @jax.jit
    def both(values):
        made = []
        for given in (values, by_name(values)):
            tx = method.make(T, **{key: given})
            made.append(tx.update(STACKED, tx.init(PARAMS), PARAMS, **extras))
        return made

    one, other = both(VALUES)
    # Of equal values, in sums that the compiler may order otherwise
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-6)


@EACH
def test_wrong_names_are_an_error_that_lists_both(method, key):
    with pytest.raises(ValueError, match=r"name 2 tasks, \['a', 'b'\]"):
        method.make(T, **{key: {"a": 0.5, "b": 0.5}})
    with pytest.raises(ValueError, match="do not sort"):
        method.make(T, **{key: {"a": 0.5, "b": 0.5, 1: 0.5}})
    with pytest.raises(ValueError, match=r"empty dict"):
        method.make(T, **{key: {}})
    with pytest.raises(ValueError, match=r"\['a'\] must be one value"):
        method.make(T, **{key: {"a": [1.0, 2.0], "b": 0.5, "c": 0.5}})


@EACH
def test_other_names_than_those_of_the_step_are_an_error(method, key):
    tx = method.make(T, **{key: by_name()})
    extras = method.extras(T, PARAMS) | {"active": {"main": True, "a": True, "b": True}}
    both = r"\['main', 'task10', 'task2'\].*\['a', 'b', 'main'\]"
    with pytest.raises(ValueError, match=both):
        jax.eval_shape(lambda: tx.update(STACKED, tx.init(PARAMS), PARAMS, **extras))


def test_arguments_must_name_the_same_tasks():
    with pytest.raises(
        ValueError, match=r"preference=: \['a', 'b'\]; reference=: \['a', 'c'\]"
    ):
        mtl.pbi(2, preference={"a": 1.0, "b": 1.0}, reference={"a": 0.0, "c": 0.0})


def test_names_and_positions_may_stand_side_by_side():
    tx = mtl.pbi(2, preference={"b": 1.0, "a": 2.0}, reference=[0.0, 0.1])
    same = mtl.pbi(2, preference=[2.0, 1.0], reference=[0.0, 0.1])
    grads, losses = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 2.0])
    got, wanted = (
        x.update(grads, x.init(grads[0]), grads[0], losses=losses)[0]
        for x in (tx, same)
    )
    np.testing.assert_array_equal(got, wanted)


def test_the_weighting_knows_the_names():
    weighting = mtl.constant.weighting(weights=by_name())
    assert weighting.names == SORTED
    assert mtl.every_k(weighting, 2).names == SORTED
    assert mtl.cr_mogm(weighting).names == SORTED
    assert mtl.constant.weighting(weights=VALUES).names is None


def test_injected_hyperparameters_beside_a_dict():
    wrap = optax.inject_hyperparams(mtl.cagrad, static_args=("num_tasks",))
    tx = wrap(T, c=0.5, preference=by_name())
    state = tx.init(PARAMS)
    assert set(state.hyperparams) == {"c", "rescale"}
    update, _ = jax.jit(tx.update)(STACKED, state, PARAMS)
    plain = mtl.cagrad(T, c=0.5, preference=VALUES)
    wanted, _ = jax.jit(plain.update)(STACKED, plain.init(PARAMS), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), update, wanted)


def test_task_names():
    losses = {"task2": 1.0, "task10": 2.0, "main": 3.0}
    assert mtl.task_names(losses) == SORTED
    assert mtl.task_names(tuple(losses.values())) == (0, 1, 2)
    assert mtl.task_names(jnp.ones(2)) == (0, 1)
    _, lazy = mtl.lazy_task_grads(lambda p: {"b": p, "a": 2 * p})(jnp.array(1.0))
    assert mtl.task_names(lazy) == ("a", "b")
    with pytest.raises(ValueError, match="do not sort"):
        mtl.task_names({"a": 1.0, 1: 2.0})
    with pytest.raises(ValueError, match="one value a task"):
        mtl.task_names(jnp.ones((2, 2)))


GRADS = {"w": jnp.array([[1.0, 0.5], [-1.0, 1.0], [0.3, -2.0]])}
WHERE = {"w": jnp.zeros(2)}


def losses_of(params):
    """Whose gradients are GRADS, by name."""
    return {name: GRADS["w"][i] @ params["w"] for i, name in enumerate(SORTED)}


def step(tx, **extras):
    """One update of lazy gradients, which have names."""
    _, lazy = mtl.lazy_task_grads(losses_of)(WHERE)
    return tx.update(lazy, tx.init(WHERE), WHERE, **extras)


def positional(tx, **extras):
    return tx.update(GRADS, tx.init(WHERE), WHERE, **extras)


@pytest.mark.parametrize("primary", range(T))
@pytest.mark.slow
def test_pcd_follows_the_primary_task(primary):
    """As it follows the first one, if the tasks change places."""
    order = jnp.array([primary, *(t for t in range(T) if t != primary)])
    tau = jnp.array([0.1, 0.3, 0.05])
    first = mtl.pcd(T, tau=tau[order])
    moved = jax.tree.map(lambda g: g[order], GRADS)
    wanted, _ = first.update(moved, first.init(WHERE), WHERE)
    others = jnp.delete(tau, primary, assume_unique_indices=True)
    name = SORTED[primary]
    spelled = {n: tau[i] for i, n in enumerate(SORTED)}
    without = {n: value for n, value in spelled.items() if n != name}
    for got, _ in (
        positional(mtl.pcd(T, primary=primary, tau=tau)),
        positional(mtl.pcd(T, primary=jnp.int32(primary), tau=tau)),
        positional(mtl.pcd(T, primary=primary, tau=others)),
        positional(mtl.pcd(T, primary=name, tau=spelled)),
        positional(mtl.pcd(T, primary=name, tau=without)),
        step(mtl.pcd(T, primary=name, tau=tau)),
        step(mtl.pcd(T, primary=name, tau=without)),
        positional(
            mtl.pcd(T, primary=name, tau=tau), active=dict.fromkeys(NAMES, True)
        ),
    ):
        np.testing.assert_allclose(got["w"], wanted["w"], rtol=1e-5)


def test_pcd_without_its_primary_task_follows_the_first_active_one():
    active = jnp.array([True, True, False])
    got, _ = positional(mtl.pcd(T, primary=2), active=active)
    wanted, _ = positional(mtl.pcd(T), active=active)
    np.testing.assert_array_equal(got["w"], wanted["w"])


@pytest.mark.parametrize(
    ("hyper", "says"),
    [
        ({"primary": 3}, "at most 2"),
        ({"primary": -1}, "at least 0"),
        ({"primary": 0.5}, "must be a Python int"),
        ({"primary": ["main"]}, "must be one task"),
        ({"primary": "lm"}, r"'lm' is none of the tasks \['main', 'task10', 'task2'\]"),
        ({"tau": {"main": 0.1, "task2": 0.1}}, "name 2 tasks"),
        ({"tau": {"main": -0.1, "task2": 0.1, "task10": 0.1}}, "tau must be at least"),
    ],
)
def test_pcd_says_what_is_wrong(hyper, says):
    with pytest.raises(ValueError, match=says):
        step(mtl.pcd(T, **hyper))


def test_a_name_needs_gradients_with_names():
    with pytest.raises(ValueError, match="pass losses= as a dict"):
        positional(mtl.pcd(T, primary="main"))


def test_priority_by_name():
    hyper = {"multiplier_lr": 0.5, "stage_steps": 2}
    by_index = mtl.nmt(T, (2, 0, 1), **hyper)
    by_name = mtl.nmt(T, ["task2", "main", "task10"], **hyper)
    wanted, got = step(by_index), step(by_name)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    with pytest.raises(ValueError, match="got one name, 'main'"):
        mtl.nmt(T, "main", **hyper)
    with pytest.raises(ValueError, match="all names or all indices"):
        mtl.nmt(T, ("main", 1, 2), **hyper)
    with pytest.raises(ValueError, match="named differently"):
        step(mtl.nmt(T, ("main", "task10", "x"), **hyper))
    with pytest.raises(ValueError, match="name 2 tasks"):
        mtl.nmt(T, ("main", "main", "task2"), **hyper)
