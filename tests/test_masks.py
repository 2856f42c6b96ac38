"""Masks and labels of leaves: modules that can be called, and trees that do not fit."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtl_optax as mtl
from mtl_optax.nn import shared as nn_shared

T = 2


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["trunk", "head"], meta_fields=[]
)
@dataclasses.dataclass
class Model:
    """A module as Equinox has them: a pytree that can be called."""

    trunk: Any
    head: Any

    def __call__(self, x):
        raise AssertionError("a tree of labels was called")


PARAMS = Model(jnp.arange(3.0), {"w": jnp.ones(2)})
GRADS = jax.tree.map(lambda p: jnp.stack([p + 1, -2 * p - 0.5]), PARAMS)
OWNER = Model(None, {"w": 1})


def updated(tx, grads=GRADS, params=PARAMS, **extra):
    return tx.update(grads, tx.init(params), params, **extra)[0]


WAYS = {
    "shared": lambda module: mtl.on_shared(mtl.mgda(T), module(True, False)),
    "labels": lambda module: mtl.on_shared(mtl.mgda(T), labels=module((0, 1), (1,))),
    "leaves": lambda module: mtl.from_weighting(
        mtl.mgda.weighting(), T, leaves=module(True, False)
    ),
    "granularity": lambda module: mtl.mgda(T, granularity=module("a", "b")),
    "priority": lambda module: mtl.cso_project(
        T, module(jnp.array([0, 1, 0]), {"w": None})
    ),
    "owner": lambda module: mtl.task_affinity(
        T,
        losses_fn=lambda p: (jnp.sum(p.trunk), jnp.sum(p.head["w"])),
        owner=module(None, {"w": 1}),
        learning_rate=0.1,
    ),
}


OWNING = {
    "selective_groups": lambda owner: mtl.selective_groups(
        T, optax.adam(0.1), owner=owner, key=0
    ),
    "cso": lambda owner: mtl.cso(
        *(T, optax.adam(0.1)),
        strength_fn=lambda *_: Model(None, None),
        owner=owner,
        total_epochs=2,
        key=0,
    ),
}


@pytest.mark.parametrize("method", OWNING)
def test_so_are_its_parameters_and_what_tasks_own_of_them(method):
    def losses_fn(p):
        return jnp.sum(p.trunk**2), jnp.sum(p.head["w"] ** 2)

    def shapes(owner):
        tx = OWNING[method](owner)
        return jax.eval_shape(
            lambda: updated(tx, losses_fn=losses_fn, epoch=0),
        )

    chex.assert_trees_all_equal_shapes(shapes(OWNER), PARAMS)
    chex.assert_trees_all_equal_shapes(shapes(lambda _: OWNER), PARAMS)


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_can_be_called_is_a_tree(way):
    """Its own function gives the same, and is called."""
    tree = WAYS[way](Model)
    function = WAYS[way](lambda *labels: lambda params: Model(*labels))
    chex.assert_trees_all_equal(updated(tree), updated(function))


def test_a_module_without_leaves_is_a_tree_and_a_partial_a_function():
    tx = mtl.on_shared(mtl.mgda(T), Model(None, None))
    with pytest.raises(ValueError, match=r"^shared= must be a tree.*NoneType"):
        tx.init(PARAMS)
    mask = jax.tree_util.Partial(lambda trunk, _: Model(trunk, False), True)
    mtl.on_shared(mtl.mgda(T), mask).init(PARAMS)


@pytest.mark.parametrize("way", ["shared", "labels", "owner", *OWNING])
def test_a_leaf_without_gradients_beside_the_shared_ones(way):
    """It does not reach the method's own `init`."""
    tx = OWNING[way](OWNER) if way in OWNING else WAYS[way](Model)
    with pytest.raises(ValueError, match=r"tx.init: leaf .head\['w'\].*int32.*wrt="):
        tx.init(Model(jnp.ones(3), {"w": jnp.arange(2)}))


def test_an_nnx_module_is_a_tree():
    class Net(nnx.Module):
        def __init__(self, trunk, head):
            self.trunk, self.head = nnx.Param(trunk), nnx.Param(head)

        def __call__(self, x):
            raise AssertionError("a tree of labels was called")

    params = Net(jnp.ones(3), jnp.ones(2))
    grads = jax.tree.map(lambda p: jnp.stack([p, -2 * p]), params)
    got = updated(mtl.on_shared(mtl.mgda(T), Net(True, False)), grads, params)
    state = nnx.state(params)
    mask = jax.tree.map(lambda p: p.shape == (3,), state)
    wanted = updated(mtl.on_shared(mtl.mgda(T), mask), nnx.state(grads), state)
    chex.assert_trees_all_equal(jax.tree.leaves(got), jax.tree.leaves(wanted))
    assert not jnp.any(got.trunk[...]), "opposite gradients: mgda is zero there"


def test_a_number_in_a_variable_that_can_be_called_is_no_schedule():
    value = nnx.Param(jnp.array(0.1))
    got = updated(mtl.cagrad(T, c=value))
    chex.assert_trees_all_equal(got, updated(mtl.cagrad(T, c=jnp.array(0.1))))


def take(argument, tree):
    """A transformation, or a failure at once, that reads the tree."""
    params = {"w": jnp.ones(3), "b": {"x": jnp.ones(2), "y": jnp.ones(2)}}
    make = {
        "shared": lambda: mtl.on_shared(mtl.mgda(T), tree),
        "labels": lambda: mtl.on_shared(mtl.mgda(T), labels=tree),
        "leaves": lambda: mtl.from_weighting(mtl.mgda.weighting(), T, leaves=tree),
        "granularity": lambda: mtl.mgda(T, granularity=tree),
        "priority": lambda: mtl.cso_project(T, tree),
        "owner": lambda: mtl.selective_groups(T, optax.sgd(0.1), owner=tree, key=0),
    }
    tx = make[argument]()
    grads = jax.tree.map(lambda p: jnp.ones((T, *p.shape)), params)
    jax.eval_shape(lambda: tx.update(grads, tx.init(params), params))


VALUES = {
    "shared": (True, False),
    "labels": ((0, 1), (0,)),
    "leaves": (True, False),
    "granularity": ("a", "b"),
    "priority": (None, None),
    "owner": (None, 0),
}


@pytest.mark.parametrize("argument", VALUES)
def test_trees_that_do_not_fit_say_where(argument):
    one, other = VALUES[argument]
    wrong = {
        r"lacks \['b'\]": {"w": one},
        r"lacks \['b'\]\['y'\]": {"w": one, "b": {"x": other}},
        r"they lack, \['more'\]": {"w": one, "b": other, "more": one},
        r"at \['b'\] it has a list": {"w": one, "b": [other, {}]},
    }
    for where, tree in wrong.items():
        for form in (tree, lambda params, tree=tree: tree):
            with pytest.raises(ValueError, match=rf"^{argument}= must be.*{where}"):
                take(argument, form)


@pytest.mark.parametrize("mask", [False, lambda p: jax.tree.map(lambda _: 0, p)])
@pytest.mark.parametrize("wrap", [mtl.on_shared, mtl.flat_mtl, mtl.samo])
def test_a_mask_of_nothing(mask, wrap):
    more = {mtl.flat_mtl: {"rho_shared": 0.1}, mtl.samo: {"key": 0}}.get(wrap, {})
    tx = wrap(mtl.mgda(T), shared=mask, **more)
    with pytest.raises(ValueError, match=r"shared= is False on every.*unitary"):
        tx.init(PARAMS)


def test_a_mask_of_everything():
    tx = mtl.on_shared(mtl.mgda(T), nn_shared)
    with pytest.warns(UserWarning, match=r"shared= is True on every.*leave it away"):
        tx.init({"trunk": jnp.ones(2), "heads": {"a": jnp.ones(2)}})
    tx.init({"trunk": jnp.ones(2), "own": {"a": jnp.ones(2)}})
    tx.init({})  # a part of `optax.partition` may have no leaves


@pytest.mark.parametrize("value", ["False", None, ("a", "b"), 0.5, np.ones(2, bool)])
def test_a_mask_of_something_else(value):
    tx = mtl.on_shared(mtl.mgda(T), {"w": True, "b": value})
    with pytest.raises(ValueError, match=r"^shared= must be.*\['b'\]"):
        tx.init({"w": jnp.ones(2), "b": jnp.ones(2)})
