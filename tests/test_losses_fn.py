"""What all methods that ask again share: the extra argument `losses_fn`."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

import mtl_optax as mtl

OWNER = {"trunk": None, "a": 0, "b": 1}
PARAMS = {"trunk": jnp.array([1.0, -0.5]), "a": jnp.array(0.3), "b": jnp.array(-0.2)}
X = jnp.arange(32.0).reshape(16, 2) / 16 - 0.8


def losses_fn(params, x):
    z = jnp.tanh(x @ params["trunk"])
    return {name: jnp.mean((z + params[name] - 2) ** 2) for name in ("a", "b")}


def strength_fn(params, statistics):
    del statistics
    return {"trunk": None, "a": None, "b": None}


# By name: the method, and extra arguments that it needs besides
METHODS = {
    "flat_mtl": (partial(mtl.flat_mtl, mtl.mgda(2), rho_shared=0.1), {}),
    "samo": (partial(mtl.samo, mtl.mgda(2), rho=0.1, beta=0.5, key=0), {}),
    "selective_groups": (
        partial(mtl.selective_groups, 2, optax.adam(0.1), owner=OWNER, key=0),
        {},
    ),
    "cso": (
        partial(
            *(mtl.cso, 2, optax.adam(0.1)),
            strength_fn=strength_fn,
            total_epochs=10,
            key=0,
        ),
        {"epoch": 0},
    ),
    "task_affinity": (
        partial(mtl.task_affinity, 2, owner=OWNER, learning_rate=0.1),
        {},
    ),
    "auto_lambda": (partial(mtl.auto_lambda, 2, learning_rate=0.1), {}),
    "moml": (partial(mtl.moml, 2), {}),
    "forum": (partial(mtl.forum, 2, phi=1.0), {}),
}
ON_A_SECOND_BATCH = "auto_lambda", "moml", "forum"
EACH = pytest.mark.parametrize("name", METHODS)
# Of the others test_bilevel.py has what concerns their own argument.
EACH_BUT_THESE = pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ON_A_SECOND_BATCH]
)
ASKED_BEFORE = ("flat_mtl", "selective_groups", "cso", "task_affinity")


def one_update(name, params, x, axis_name=None, form=lambda losses: losses):
    make, extras = METHODS[name]
    tx = make(axis_name=axis_name)
    losses, grads = mtl.task_grads(losses_fn, axis_name=axis_name)(params, x)
    if name in ON_A_SECOND_BATCH:
        later = lambda p: form(losses_fn(p, 0.5 - x))  # noqa: E731
        extras = {**extras, "validation_losses_fn": later}
    return tx.update(
        *(grads, tx.init(params), params),
        losses=losses,
        losses_fn=lambda p: form(losses_fn(p, x)),
        **extras,
    )


def refuse(name, message, **extras):
    make, more = METHODS[name]
    tx = make()
    grads = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), PARAMS)
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(PARAMS), PARAMS, **more, **extras)


@EACH
@pytest.mark.slow
def test_a_batch_over_devices_is_one_batch(name):
    """Losses and gradients at moved parameters are means over `axis_name`."""
    over_devices = jax.shard_map(
        partial(one_update, name, axis_name="data"),
        mesh=jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    wanted = jax.jit(partial(one_update, name))(PARAMS, X)
    near = {"rtol": 2e-5, "atol": 1e-6}  # affinities are differences of losses
    chex.assert_trees_all_close(jax.jit(over_devices)(PARAMS, X), wanted, **near)


@EACH
@pytest.mark.slow
def test_a_dict_a_tuple_and_an_array_of_losses_are_the_same(name):
    wanted, _ = one_update(name, PARAMS, X)
    for form in (
        lambda losses: (losses["a"], losses["b"]),
        lambda losses: jnp.stack([losses["a"], losses["b"]]),
    ):
        found, _ = one_update(name, PARAMS, X, form=form)
        chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-7)


@EACH
def test_a_tree_without_leaves_goes_through(name):
    """As `optax.partition` hands one over, from which no number of tasks is read."""
    make, extras = METHODS[name]
    tx = make(owner=None) if name in ("selective_groups", "task_affinity") else make()
    ask = lambda p: losses_fn(PARAMS, X)  # noqa: E731
    extras = {"losses_fn": ask, **extras}
    if name in ON_A_SECOND_BATCH:
        extras["validation_losses_fn"] = ask
    update, _ = tx.update({}, tx.init({}), {}, **extras)
    assert update == {}


@EACH_BUT_THESE
def test_it_is_needed_and_the_error_shows_the_call(name):
    refuse(name, rf"{name} needs the extra argument losses_fn=.*lambda p: losses_fn\(p")


@EACH_BUT_THESE
def test_it_returns_losses_only_and_one_a_task(name):
    with_aux = lambda p: (losses_fn(p, X), {"seen": X})  # noqa: E731
    refuse(name, r"losses only.*lambda p: losses_fn\(p, x\)\[0\]", losses_fn=with_aux)
    three = lambda p: (0.0, 1.0, 2.0)  # noqa: E731
    refuse(name, f"{name}: losses_fn= gave 3 losses for 2 tasks", losses_fn=three)


@EACH_BUT_THESE
def test_tasks_keep_their_names(name):
    """Of lazy gradients, whose losses came as a dict, and of `losses_fn`."""
    make, extras = METHODS[name]
    tx = make()
    _, grads = mtl.lazy_task_grads(losses_fn)(PARAMS, X)
    renamed = lambda p: dict(zip("yz", losses_fn(p, X).values(), strict=True))  # noqa: E731
    with pytest.raises(ValueError, match=r"named differently.*'a', 'b'.*'y', 'z'"):
        tx.update(grads, tx.init(PARAMS), PARAMS, losses_fn=renamed, **extras)


@pytest.mark.parametrize("name", ASKED_BEFORE)
@pytest.mark.parametrize("old", ["task_grad_fn", "group_grad_fn"])
def test_what_it_replaced_raises(name, old):
    call = rf"{old}= is now losses_fn=.*losses_fn=lambda p: losses_fn\(p"
    refuse(name, call, **{old: mtl.group_grads_at(losses_fn, X)})


def test_names_of_the_losses_are_those_of_the_methods_arguments():
    """Stacked gradients have no names: those of `losses_fn` are compared."""

    def losses_at(params):
        return {"a": jnp.sum(params["w"] ** 2), "b": jnp.sum(params["w"])}

    params = {"w": jnp.ones(2)}
    stacked = {"w": jnp.ones((2, 2))}
    wrong = {"a": 1.0, "zz": 1.0}
    right = {"a": 1.0, "b": 1.0}

    def update(tx):
        return tx.update(stacked, tx.init(params), params, losses_fn=losses_at)

    def groups(preference):
        return mtl.selective_groups(
            2, optax.sgd(0.1), owner=None, preference=preference, key=0
        )

    update(groups(right))
    with pytest.raises(ValueError, match="named differently"):
        update(groups(wrong))
