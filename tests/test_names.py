"""Values by name: a dict is what its values in sorted order of names are."""

import inspect

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
    jax.tree.map(np.testing.assert_array_equal, one, other)


@EACH
def test_wrong_names_are_an_error_that_lists_both(method, key):
    with pytest.raises(ValueError, match=r"name 2 tasks, \['a', 'b'\]"):
        method.make(T, **{key: {"a": 0.5, "b": 0.5}})
    with pytest.raises(ValueError, match="do not sort"):
        method.make(T, **{key: {"a": 0.5, "b": 0.5, 1: 0.5}})
    with pytest.raises(ValueError, match=r"empty dict"):
        method.make(T, **{key: {}})
    with pytest.raises(ValueError, match=r"\['a'\] must be one value"):
        method.make(T, **{key: {"a": jnp.ones(3), "b": 0.5, "c": 0.5}})


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
