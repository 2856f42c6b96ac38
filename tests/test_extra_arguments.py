"""What a method takes besides gradients: numbers, one value a task, extra arguments."""

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
from mtl_optax.core.arguments.schedules import ScalarOrSchedule

PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(2)}
STACKED = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), PARAMS)
# Extra argument -> who takes it.
TAKEN_BY = {
    "gramian": {method.name for method in METHODS if method.family == "gramian"},
    "order": {"pcgrad", "gradvac"},
    "uniforms": {"graddrop"},
    "normals": {"rlw"},
    "previous_losses": {"famo"},
    "priority": {"cso_project"},
    # of auto_lambda, moml and forum, which are no rows
    "validation_losses_fn": set(),
    "validation_active": set(),
}
FORMER = "precomputed_gramian", "cross_gramian", "task_grad_fn", "group_grad_fn"
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def traced(tx, grads=STACKED, **extras):
    """One update, without computing anything."""
    state = jax.eval_shape(tx.init, PARAMS)
    step = lambda grads, state: tx.update(grads, state, PARAMS, **extras)  # noqa: E731
    return jax.eval_shape(step, grads, state)[0]


@EACH
def test_extra_arguments_of_other_methods_raise(method):
    if method.min_tasks > 2:
        return
    tx = method.make(2)
    extras = method.extras(2, PARAMS)
    for key, takers in TAKEN_BY.items():
        if method.name not in takers:
            with pytest.raises(
                ValueError, match=f"{key}= has no effect here.*argument"
            ):
                traced(tx, **{**extras, key: jnp.ones((2, 2))})
    for key in FORMER:
        with pytest.raises(ValueError, match=f"{key}= is now"):
            traced(tx, **extras, **{key: jnp.ones(7)})
    # What the library does not know, and what is None, is another's.
    chex.assert_trees_all_equal_shapes(
        traced(tx, **{"uniforms": None, **extras}, value=1.0, epoch=3), PARAMS
    )


@pytest.mark.parametrize(
    "tx",
    [
        mtl.from_weighting(mtl.every_k(mtl.mgda.weighting(), 2), 2),
        mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting()), 2),
        mtl.from_weighting(mtl.divide(mtl.pcgrad.weighting(key=0)), 2),
        mtl.cagrad(2, c=lambda count: 0.4),
        optax.chain(mtl.mgda(2), optax.adam(0.1)),
        optax.inject_hyperparams(mtl.cagrad, static_args=("num_tasks", "rescale"))(
            num_tasks=2, c=0.4
        ),
        mtl.skip_nonfinite_tasks(mtl.mgda(2), 2),
        mtl.graddrop(2, key=0, at="features"),
    ],
)
def test_they_raise_through_wrappers(tx):
    with pytest.raises(ValueError, match="order= has no effect here"):
        traced(tx, order=jnp.array([[1], [0]]))


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: mtl.stale(tx, 2)])
def test_they_raise_for_lazy_gradients(wrap):
    params = jnp.ones(2)
    _, lazy = mtl.lazy_task_grads(lambda p: (jnp.sum(p), jnp.sum(p**2)))(params)
    tx = wrap(mtl.mgda(2))
    with pytest.raises(ValueError, match="order= has no effect here"):
        tx.update(lazy, tx.init(params), params, order=jnp.zeros((2, 1), int))


def test_wrappers_hand_on_what_their_method_takes():
    order = jnp.array([[1], [0]])
    for weighting in (
        mtl.every_k(mtl.pcgrad.weighting(key=0), 2),
        mtl.cr_mogm(mtl.gradvac.weighting(key=0), alpha=lambda count: 0.5),
    ):
        traced(mtl.from_weighting(weighting, 2), order=order, gramian=jnp.eye(2))


def test_rlw_without_normal_draws_takes_none():
    with pytest.raises(ValueError, match="normals= has no effect with"):
        traced(mtl.rlw(2, key=0, distribution="uniform"), normals=jnp.ones(2))


def test_a_rule_of_ones_own_takes_what_it_likes():
    def update(gramian, state, *, losses, active, **extra):
        return extra["normals"], state

    rule = mtl.Weighting(lambda num_tasks: (), update, uses_gramian=False)
    traced(mtl.from_weighting(rule, 2), normals=jnp.ones(2))
    with pytest.raises(ValueError, match="gramian= has no effect here"):
        traced(mtl.from_weighting(rule, 2), normals=jnp.ones(2), gramian=jnp.eye(2))


def test_other_parts_of_a_chain_may_take_theirs():
    """`losses_fn` is for the observer before, and the Gramian for one part of two."""
    losses_fn = lambda p: (jnp.sum(p["w"] ** 2), jnp.sum(p["b"]))  # noqa: E731
    tx = optax.chain(
        mtl.task_affinity(2, owner=None, every_k=1, learning_rate=0.1), mtl.mgda(2)
    )
    traced(tx, losses_fn=losses_fn, gramian=jnp.eye(2))
    parts = optax.partition(
        {"own": mtl.mgda(2), "sum": mtl.unitary(2)}, {"w": "own", "b": "sum"}
    )
    traced(parts, gramian=jnp.eye(2))
    tx = mtl.accumulate_tasks(optax.chain(mtl.modo(2), optax.sgd(0.1)), 2, every_k=2)
    traced(tx, gramian=jnp.eye(2))


# --- Values for each task, and numbers, at construction -------------------------------


def arguments(kind):
    return [
        pytest.param(method, key, id=f"{method.name}-{key}")
        for method in METHODS
        for key, given in inspect.signature(method.factory).parameters.items()
        if given.annotation == kind
    ]


@pytest.mark.parametrize(("method", "key"), arguments(PerTask))
def test_another_number_of_values_raises_at_construction(method, key):
    values = jnp.ones(3)
    wrong = pytest.raises(
        ValueError, match=rf"{key} must have one entry a task.*\(3,\)"
    )
    with wrong:
        method.make(2, **{key: values})
    with wrong:
        method.make(2, **{key: lambda count: values})
    if method.family == "gradients":
        return
    with pytest.raises(ValueError, match=r"name 3 tasks.*num_tasks=2"):
        method.make(2, **{key: {"a": 1.0, "b": 1.0, "c": 1.0}})
    more = {"multiplier_lr": 1, "stage_steps": 1} if method.name == "nmt" else {}
    first = [(0, 1)] if method.name == "nmt" else []
    weighting = method.factory.weighting(*first, **more, **{key: values})
    for wrapped in (
        weighting,
        mtl.every_k(weighting, 2),
        mtl.cr_mogm(weighting, alpha=lambda count: 0.5),
        mtl.divide(weighting),
    ):
        with wrong:
            mtl.from_weighting(wrapped, 2)


@pytest.mark.parametrize(("method", "key"), arguments(ScalarOrSchedule))
def test_a_number_is_one_number(method, key):
    default = inspect.signature(method.factory).parameters[key].default
    wrong = [jnp.ones(2), "0.5", [0.5], lambda count: jnp.ones(2)]
    for value in [*wrong, *([] if default is None else [None])]:
        with pytest.raises(
            ValueError, match=f"{key} must be one number, or a function"
        ):
            method.make(2, **{key: value})
    one = 0.5 if (method.name, key) == ("sam_gs", "beta2") else 1  # that one is below 1
    for value in (np.float32(one), jnp.array(float(one))):
        method.make(2, **{key: value})
    jax.eval_shape(lambda value: method.make(2, **{key: value}).init(PARAMS), 1.0)


def test_a_number_that_may_be_none_may_be_none():
    mtl.flat_mtl(mtl.unitary(2), rho_shared=0.1, rho_specific=None)
    with pytest.raises(ValueError, match=r"rho_shared must be one number.*got None"):
        mtl.flat_mtl(mtl.unitary(2), rho_shared=None)
    with pytest.raises(ValueError, match="alpha must be one number"):
        mtl.cr_mogm(mtl.mgda.weighting(), alpha=jnp.ones(2))
