"""One error, with its cure, for whoever takes lazy task gradients for a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax import lax

import mtl_optax as mtl

T = 2
PARAMS = {"w": jnp.ones(3), "b": jnp.ones(2)}
METHOD = optax.chain(mtl.mgda(T), optax.sgd(0.1))
CURES = (
    "Put the method first",
    "inside one jitted step",
    "flax_support.nnx_update",
    "MultiTaskTrainState",
    "axis_name=",
    "mtl_optax.task_grads",
)


def losses_fn(params):
    return {"a": jnp.sum(params["w"] ** 2), "b": jnp.sum(params["b"])}


def lazy():
    return mtl.lazy_task_grads(losses_fn)(PARAMS)[1]


def at_features():
    return mtl.feature_task_grads(
        lambda p: p["w"], lambda p, z: {"a": jnp.sum(z), "b": jnp.sum(p["b"])}
    )(PARAMS)[1]


def updating(tx):
    tx = optax.with_extra_args_support(tx)
    return lambda grads: tx.update(grads, tx.init(PARAMS), PARAMS)


def before(tx):
    return updating(optax.chain(tx, METHOD))


def nnx_update(grads):
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    nnx.Optimizer(model, METHOD, wrt=nnx.Param).update(model, grads)


def flax_update(grads):
    TrainState.create(apply_fn=None, params=PARAMS, tx=METHOD).apply_gradients(
        grads=grads
    )


MISUSES = {
    "scale": before(optax.scale(0.1)),
    "clip_by_global_norm": before(optax.clip_by_global_norm(1.0)),
    "trace": before(optax.trace(0.9)),
    "adam": before(optax.scale_by_adam()),
    "alone": updating(optax.adam(0.1)),
    "zero_nans": before(optax.zero_nans()),
    "decay": before(optax.add_decayed_weights(0.1)),
    "masked": updating(optax.masked(METHOD, {"w": True, "b": False})),
    "partition": updating(optax.partition({"all": METHOD}, {"w": "all", "b": "all"})),
    "apply_if_finite": updating(optax.apply_if_finite(METHOD, 3)),
    "MultiSteps": updating(optax.MultiSteps(METHOD, 2).gradient_transformation()),
    "tree.norm": optax.tree.norm,
    "tree.map": lambda grads: jax.tree.map(jnp.zeros_like, grads),
    "pmean": lambda grads: lax.pmean(grads, "data"),
    "TrainState": flax_update,
    "nnx.Optimizer": nnx_update,
    "jnp function": jnp.isfinite,
    "jnp.stack": lambda grads: jnp.stack([grads, grads]),
    "numpy": np.asarray,
    "product": lambda grads: 0.1 * grads,
    "product with an array": lambda grads: jnp.float32(2) * grads,
    "entry": lambda grads: grads["w"],
    "argument of jit": jax.jit(lambda grads: grads.losses),
    "operand of cond": lambda grads: lax.cond(
        True, lambda g: g.losses, lambda g: g.losses, grads
    ),
}


@pytest.mark.parametrize("make", [lazy, at_features])
@pytest.mark.parametrize("misuse", MISUSES)
def test_an_error_that_says_lazy_and_what_to_do(misuse, make):
    def step():
        MISUSES[misuse](make())

    for program in (step, lambda: jax.eval_shape(step)):
        with pytest.raises(ValueError, match="Lazy task gradients are no tree") as info:
            program()
        for cure in CURES:
            assert cure in str(info.value)


@pytest.mark.parametrize("make", [lazy, at_features])
def test_out_of_jit(make):
    with pytest.raises(ValueError, match=r"cannot cross the border of a jax\.jit"):
        jax.jit(make)()


def test_one_jitted_step_compiles_once():
    @jax.jit
    def step(params, state):
        grads = mtl.lazy_task_grads(losses_fn)(params)[1]
        updates, state = METHOD.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    now = PARAMS, METHOD.init(PARAMS)
    for _ in range(3):
        now = step(*now)
    assert step._cache_size() == 1
