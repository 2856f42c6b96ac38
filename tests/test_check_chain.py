"""What no aggregator can see from inside, found by shapes before training."""

import jax
import jax.numpy as jnp
import optax
import pytest

import mtl_optax as mtl

PARAMS = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
T = 2


def chain():
    return optax.chain(mtl.mgda(T), optax.adam(1e-3))


RIGHT = {
    "first in chain": chain(),
    "SGD after": optax.chain(mtl.cagrad(T), optax.sgd(1e-2)),
    "clipping after": optax.chain(
        mtl.upgrad(T), optax.clip_by_global_norm(1.0), optax.adam(1e-3)
    ),
    "before MultiSteps": optax.chain(
        mtl.mgda(T), optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation()
    ),
    "before apply_if_finite": optax.chain(
        mtl.mgda(T), optax.apply_if_finite(optax.adam(1e-3), 5)
    ),
    "on_shared": optax.chain(
        mtl.on_shared(mtl.mgda(T), {"w": True, "b": False}), optax.adam(1e-3)
    ),
    "partition": optax.partition(
        {"shared": chain(), "head": optax.chain(mtl.unitary(T), optax.sgd(0.1))},
        {"w": "shared", "b": "head"},
    ),
    "inject_hyperparams": optax.inject_hyperparams(
        mtl.cagrad, static_args=("num_tasks",), hyperparam_dtype=jnp.float32
    )(num_tasks=T, c=0.4),
    "random": optax.chain(mtl.pcgrad(T, key=0), optax.adam(1e-3)),
    "from gradients": optax.chain(mtl.graddrop(T, key=0), optax.adam(1e-3)),
}

WRONG = {
    "Adam before": (
        optax.chain(optax.scale_by_adam(), mtl.mgda(T)),
        r"\.mu\['b'\] changes shape.*from \(4,\) to \(2, 4\).*aggregator first",
    ),
    "trace before": (
        optax.chain(optax.trace(0.9), mtl.mgda(T), optax.sgd(0.1)),
        "stateful transformation.*per_task",
    ),
    "masked around": (
        optax.masked(chain(), {"w": True, "b": False}),
        r"\['b'\] come out stacked.*on_shared",
    ),
    "apply_if_finite around": (
        optax.apply_if_finite(chain(), 3),
        "apply_if_finite around.*skip_nonfinite_tasks",
    ),
    "MultiSteps around": (
        optax.MultiSteps(chain(), 2).gradient_transformation(),
        "MultiSteps around.*accumulate_tasks",
    ),
    "MultiSteps around, in a chain": (
        optax.chain(optax.MultiSteps(chain(), 2).gradient_transformation()),
        "MultiSteps around.*accumulate_tasks",
    ),
    "no aggregator": (optax.adam(1e-3), "no aggregator.*mgda"),
    "stateless without aggregator": (optax.sgd(1e-3), "no aggregator.*mgda"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_places_pass(name):
    assert mtl.check_chain(RIGHT[name], PARAMS, T) is None


@pytest.mark.parametrize("name", WRONG)
def test_wrong_places_are_named_with_their_cure(name):
    tx, message = WRONG[name]
    with pytest.raises(ValueError, match=f"check_chain: .*{message}"):
        mtl.check_chain(tx, PARAMS, T)


def test_extra_arguments_reach_the_method():
    tx = optax.chain(mtl.uw(T), optax.adam(1e-3))
    mtl.check_chain(tx, PARAMS, T, losses=jnp.ones(T))
    with pytest.raises(ValueError, match="uw needs the extra argument losses="):
        mtl.check_chain(tx, PARAMS, T)


def test_wrong_num_tasks_is_the_guards_error():
    with pytest.raises(ValueError, match="stacked over 3 tasks, the method was built"):
        mtl.check_chain(chain(), PARAMS, 3)


def test_computes_nothing_and_takes_abstract_parameters():
    shapes = jax.eval_shape(lambda: {"w": jnp.ones((10**6, 10**6))})
    mtl.check_chain(chain(), shapes, T)
