"""A state of other tasks, or of other gradients, is an error with its cure."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_runs import EACH, PARAMS, gradients
from flax import nnx

import mtl_optax as mtl
from mtl_optax.flax_support import MultiTaskTrainState, nnx_update

CURE = r"mtl_optax.resize_tasks\(opt_state, old_names, new_names"


def traced(tx, num_tasks, state, extras=None, params=PARAMS):
    grads = jax.tree.map(lambda p: jnp.ones((num_tasks, *p.shape), p.dtype), PARAMS)
    extras = extras or {}
    return jax.eval_shape(lambda s: tx.update(grads, s, params, **extras), state)


def shapes(state):
    return [leaf.shape for leaf in jax.tree.leaves(state)]


def restored(target, source):
    """What Flax makes of the bytes of one state and another as the target."""
    saved = flax.serialization.to_bytes(source)
    return flax.serialization.from_bytes(target, saved)


@EACH
def test_every_method_sees_the_state_of_another_task_count(method):
    more = max(3, method.min_tasks)
    tx, extras = method.make(more), method.extras(more, PARAMS)
    own = tx.init(PARAMS)
    few, some = max(1, method.min_tasks), max(2, method.min_tasks)
    given = {few: method.make(few).init(PARAMS)}
    given[some] = restored(own, method.make(some).init(PARAMS))
    for other, state in given.items():
        params = PARAMS if other == few else None
        if shapes(state) == shapes(own):  # nothing in it belongs to tasks
            traced(tx, more, state, extras)
            continue
        message = f"that of {other} tasks, but .* num_tasks={more}.*{CURE}"
        with pytest.raises(ValueError, match=message):
            traced(tx, more, state, extras, params)
    seeds = jax.tree.map(lambda x: np.stack([x, x]), own)

    def of_seed(state, scale):
        grads = jax.tree.map(lambda g: scale * g, gradients(more))
        return tx.update(grads, state, PARAMS, **extras)

    jax.eval_shape(jax.vmap(of_seed), seeds, jnp.ones(2))


ASKED = {"losses_fn": lambda p: (jnp.sum(p["bias"]),) * 3}
WRAPPED = {
    "accumulate_tasks": lambda n: mtl.accumulate_tasks(mtl.graddrop(n, key=0), n, 2),
    "per_task": lambda n: mtl.per_task(optax.trace(0.9), n),
    "skip_nonfinite_tasks": lambda n: mtl.skip_nonfinite_tasks(
        mtl.graddrop(n, key=0), n
    ),
    "inner state": lambda n: mtl.accumulate_tasks(mtl.dwa(n), n, 1)._replace(
        init=lambda p: (
            mtl.accumulate_tasks(mtl.dwa(3), 3, 1)
            .init(p)
            ._replace(inner=mtl.dwa(n).init(p))
        )
    ),
    "on_shared": lambda n: mtl.on_shared(
        mtl.moco(n), {"kernel": True, "bias": False, "scale": False}
    ),
    "blocks": lambda n: mtl.gradvac(n, key=0, granularity="leaf"),
    "every_k": lambda n: mtl.from_weighting(mtl.every_k(mtl.uw.weighting(), 2), n),
    "cr_mogm": lambda n: mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting()), n),
    "schedule": lambda n: mtl.db_mtl(n, beta=lambda step: 0.9 / (step + 1)),
    "flat_mtl": lambda n: mtl.flat_mtl(mtl.excess_mtl(n), rho_shared=0.1),
    "samo": lambda n: mtl.samo(mtl.excess_mtl(n), key=0),
    "task_affinity": lambda n: mtl.task_affinity(n, owner=None, learning_rate=0.1),
    "selective_groups": lambda n: mtl.selective_groups(
        n, optax.sgd(0.1), owner=None, key=0
    ),
    "inject_hyperparams": lambda n: optax.inject_hyperparams(
        mtl.cagrad, static_args="num_tasks", hyperparam_dtype=jnp.float32
    )(n, c=0.3),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_wrapper_sees_it(name):
    tx, extras = WRAPPED[name](3), ASKED | {"losses": jnp.ones(3)}
    state = WRAPPED[name](2).init(PARAMS)
    if name == "inner state":
        tx = mtl.accumulate_tasks(mtl.dwa(3), 3, 1)
    with pytest.raises(ValueError, match=f"of 2 tasks, but .* num_tasks=3.*{CURE}"):
        traced(tx, 3, state, extras)
    traced(tx, 3, tx.init(PARAMS), extras)


def test_states_of_groups_and_of_owners():
    def by_label(last):
        labels = {"kernel": (0, 1), "bias": (0, last), "scale": (0,)}
        return mtl.on_shared(mtl.mgda(3), labels=labels)

    message = rf"\['0,1'\], but the labels of the leaves now.*\['0,1', '0,2'\].*{CURE}"
    with pytest.raises(ValueError, match=message):
        traced(by_label(2), 3, by_label(1).init(PARAMS))

    def by_owner(task):
        about = {"strength_fn": lambda *_: dict.fromkeys(PARAMS), "total_epochs": 1}
        owner = {"kernel": None, "bias": 0, "scale": task}
        return mtl.cso(3, optax.sgd(0.1), owner=owner, key=0, **about)

    with pytest.raises(ValueError, match=rf"ask for \['0', '2', 'shared'\].*{CURE}"):
        traced(by_owner(2), 3, by_owner(1).init(PARAMS), ASKED | {"epoch": 0})


def test_the_state_of_another_method():
    state = mtl.uw(2).init(PARAMS)
    with pytest.raises(
        ValueError, match=r"\d arrays, where this.* keeps 2: it belongs"
    ):
        traced(mtl.mgda(2), 2, state)


# --- Gradients that are not stacked, but begin with T ---------------------------------

SCANNED = {"layers": jnp.ones((2, 3)), "more": jnp.ones((2, 4, 3))}
KNOWING = {
    "accumulate_tasks": mtl.accumulate_tasks(mtl.mgda(2), 2, 2),
    "per_task": mtl.per_task(optax.trace(0.9), 2),
    "moco": mtl.moco(2),
    "db_mtl": mtl.db_mtl(2),
    "excess_mtl": mtl.excess_mtl(2),
}


@pytest.mark.parametrize("name", KNOWING)
def test_whoever_knows_the_shapes_sees_unstacked_gradients(name):
    """Also without `params`: of layers that are scanned, as many as there are tasks."""
    tx, extras = KNOWING[name], {"losses": jnp.ones(2)}
    state = tx.init(SCANNED)
    message = r"\['layers'\] of the optimizer state has shape \(2, 2, 3\).*not stacked"
    with pytest.raises(ValueError, match=message):
        tx.update(SCANNED, state, **extras)
    stacked = jax.tree.map(lambda p: jnp.stack([p, p]), SCANNED)
    jax.eval_shape(lambda: tx.update(stacked, state, **extras))


def test_training_states_see_them_too():
    state = MultiTaskTrainState.create(apply_fn=None, params=SCANNED, tx=mtl.mgda(2))
    with pytest.raises(ValueError, match="not stacked"):
        state.apply_gradients(grads=SCANNED)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    model.kernel = nnx.Param(jnp.ones((2, 3)))
    optimizer = nnx.Optimizer(model, mtl.mgda(2), wrt=nnx.Param)
    with pytest.raises(ValueError, match="not stacked"):
        nnx_update(optimizer, model, nnx.state(model, nnx.Param))
