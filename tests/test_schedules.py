"""Hyper-parameters that change with the step count."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from methods import BY_NAME, METHODS

import mtl_optax as mtl
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import (
    NumbersOrSchedule,
    ScalarOrSchedule,
    ScheduledState,
)

T = 3
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
STACKED = {
    "w": jnp.array([[1.0, 0.5], [-1.0, 1.0], [0.3, -2.0]]),
    "b": jnp.array([0.1, 0.2, -0.4]),
}
WITH_NUMBERS = [method for method in METHODS if method.hyper]
EACH = pytest.mark.parametrize("method", WITH_NUMBERS, ids=lambda method: method.name)


def changing(one, other):
    return lambda count: jnp.where(count == 0, one, other)


def test_every_numeric_hyperparameter_may_change():
    kinds = PerTask, ScalarOrSchedule, NumbersOrSchedule
    for method in METHODS:
        parameters = inspect.signature(method.factory).parameters
        for key in method.hyper:
            assert parameters[key].annotation in kinds, (method.name, key)


def without_schedule(state):
    """The same state without the step count."""
    is_one = lambda x: isinstance(x, ScheduledState)  # noqa: E731
    return jax.tree.map(lambda x: x.inner if is_one(x) else x, state, is_leaf=is_one)


def losses_fn(params):
    a, b = params["w"]
    return (a - b) ** 2, jnp.sum(params["w"] ** 2) + params["b"], (a + 1) ** 2


def smoothed(num_tasks, **hyper):
    return mtl.from_weighting(mtl.cr_mogm(mtl.mgda.weighting(), **hyper), num_tasks)


# What has numbers and no row: how to build it, two values each, its extra arguments.
OTHERS = {
    "cr_mogm": (smoothed, {"alpha": (0.9, 0.2)}, {}),
    "flat_mtl": (
        lambda num_tasks, **hyper: mtl.flat_mtl(mtl.unitary(num_tasks), **hyper),
        {"rho_shared": (0.1, 0.3), "rho_specific": (0.2, 0.0)},
        {"losses_fn": losses_fn},
    ),
    "samo": (
        lambda num_tasks, **hyper: mtl.samo(mtl.unitary(num_tasks), key=0, **hyper),
        {"rho": (0.1, 0.3), "beta": (0.1, 0.5), "step": (0.01, 0.5)},
        {"losses_fn": losses_fn},
    ),
    "selective_groups": (
        lambda num_tasks, **hyper: mtl.selective_groups(
            num_tasks, optax.adam(0.1), owner=None, key=0, **hyper
        ),
        {"decay": (1e-3, 0.5), "warmup": (0, 1), "preference": (0.0, 0.5)},
        {"losses_fn": losses_fn},
    ),
    "cso": (
        lambda num_tasks, **hyper: mtl.cso(
            *(num_tasks, optax.adam(0.1)),
            strength_fn=lambda params, _: dict.fromkeys(params),
            key=0,
            **hyper,
        ),
        {"total_epochs": (3.0, 1.0)},
        {"losses_fn": losses_fn, "epoch": 1, "uniform": 0.5},
    ),
    "task_affinity": (
        lambda num_tasks, **hyper: optax.chain(
            mtl.task_affinity(num_tasks, owner=None, every_k=1, **hyper),
            mtl.unitary(num_tasks),
        ),
        {"learning_rate": (0.1, 0.3)},
        {"losses_fn": losses_fn},
    ),
    "auto_lambda": (
        mtl.auto_lambda,
        {"learning_rate": (0.1, 0.3)},
        {"validation_losses_fn": losses_fn},
    ),
    "moml": (
        mtl.moml,
        {"learning_rate": (0.1, 0.3)},
        {"validation_losses_fn": losses_fn},
    ),
    "forum": (
        mtl.forum,
        {"learning_rate": (0.1, 0.3), "phi": (0.1, 2.0), "step_size": (1.0, 0.5)},
        {"losses_fn": losses_fn, "validation_losses_fn": losses_fn},
    ),
    "stale": (
        lambda num_tasks, **hyper: mtl.stale(
            mtl.mgda(num_tasks), num_tasks, refresh=num_tasks, **hyper
        ),
        {"decay": (0.5, 0.1)},
        {},
    ),
    "mconfig": (
        lambda num_tasks, **hyper: mtl.mconfig(num_tasks, refresh=num_tasks, **hyper),
        {"beta1": (0.9, 0.2), "beta2": (0.9, 0.5), "eps": (1e-8, 0.1)},
        {},
    ),
    "son_goku": (
        lambda num_tasks, **hyper: mtl.son_goku(
            mtl.mean(num_tasks), num_tasks, period=1, **hyper
        ),
        {"threshold": (0.25, -0.9), "decay": (0.9, 0.5)},
        {},
    ),
}


@pytest.mark.parametrize("name", [*(m.name for m in WITH_NUMBERS), *OTHERS])
def test_changing_is_building_anew(name):
    if name in OTHERS:
        make, hyper, more = OTHERS[name]
        extras = [more, more]
    else:
        method = BY_NAME[name]
        make, hyper = method.make, method.hyper
        extras = [method.extras(T, PARAMS, seed) for seed in range(2)]
    settings = [{key: two[i] for key, two in hyper.items()} for i in range(2)]
    schedules = {key: changing(*two) for key, two in hyper.items()}

    @jax.jit
    def both(stacked):
        tx = make(T, **schedules)
        state, again = tx.init(PARAMS), make(T, **settings[0]).init(PARAMS)
        for setting, more in zip(settings, extras, strict=True):
            update, state = tx.update(stacked, state, PARAMS, **more)
            anew = make(T, **setting)
            wanted, again = anew.update(stacked, again, PARAMS, **more)
        return (update, without_schedule(state)), (wanted, again)

    same, wanted = both(STACKED)
    chex.assert_trees_all_equal_structs(same, wanted)
    chex.assert_trees_all_close(same, wanted, rtol=1e-5, atol=1e-6)


def test_nothing_with_numbers_is_left_out():
    """Every public function with a number that may change is in a table above."""
    kinds = PerTask, ScalarOrSchedule, NumbersOrSchedule
    found = {
        name
        for name in mtl.__all__
        if callable(factory := getattr(mtl, name))
        and any(p.annotation in kinds for p in parameters_of(factory))
    }
    assert found == {method.name for method in WITH_NUMBERS} | set(OTHERS)


def parameters_of(factory):
    return inspect.signature(factory).parameters.values()


@EACH
def test_scan_keeps_the_state_and_the_count_waits_for_tasks(method):
    constant = {key: lambda count, v=two[1]: v for key, two in method.hyper.items()}
    tx = method.make(T, **constant)
    extras = method.extras(T, PARAMS)

    def step(state, active):
        update, state = tx.update(STACKED, state, PARAMS, active=active, **extras)
        return state, update

    start = tx.init(PARAMS)
    masks = jnp.array([[True] * T, [False] * T, [True, False, True]])
    end, _ = jax.eval_shape(lambda: lax.scan(step, start, masks))
    chex.assert_trees_all_equal_shapes_and_dtypes(end, start)


def counts(state):
    is_one = lambda x: isinstance(x, ScheduledState)  # noqa: E731
    leaves = jax.tree.leaves(state, is_leaf=is_one)
    return [int(leaf.count) for leaf in leaves if is_one(leaf)]


def test_the_count_is_that_of_steps_with_a_task():
    tx = mtl.constant(T, weights=lambda count: jnp.arange(3.0) + count)
    state, seen = tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for present in (True, False, True):
        active = jnp.full(T, present)
        _, state = update(STACKED, state, PARAMS, active=active)
        seen += counts(state)
    assert seen == [1, 1, 2]
    assert update._cache_size() == 1
    np.testing.assert_array_equal(mtl.task_weights(state), [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "weights",
    [
        lambda count: {"b": 1.0, "a": 2.0 * count},
        {"b": 1.0, "a": lambda count: 2.0 * count},
    ],
    ids=["of dicts", "in a dict"],
)
def test_by_name_and_by_schedule_at_once(weights):
    rule = mtl.constant.weighting(weights=weights)
    assert rule.names == ("a", "b")
    tx = mtl.from_weighting(rule, 2)
    state, grads = tx.init(jnp.zeros(1)), jnp.ones((2, 1))
    for wanted in (0.0, 2.0):
        _, state = tx.update(grads, state, jnp.zeros(1))
        np.testing.assert_array_equal(mtl.task_weights(state), [wanted, 1.0])


def test_values_of_a_schedule_are_checked():
    with pytest.raises(ValueError, match="c must be at least 0"):
        mtl.cagrad(2, c=lambda count: -1.0)


def test_wrappers_take_a_scheduled_weighting():
    rule = mtl.cagrad.weighting(c=optax.linear_schedule(0.0, 0.5, 2))
    for wrapped in (mtl.every_k(rule, 2), mtl.cr_mogm(rule)):
        tx = mtl.from_weighting(wrapped, T)
        state = tx.init(PARAMS)
        for _ in range(2):
            _, state = jax.jit(tx.update)(STACKED, state, PARAMS)
        # Weights that are held are not computed, so they do not count.
        assert counts(state) == [1 if wrapped.due else 2]


AROUND = {
    "on_shared": (lambda tx: mtl.on_shared(tx, {"w": True, "b": False}), [2]),
    "on_shared labels": (
        lambda tx: mtl.on_shared(tx, labels={"w": (0, 1), "b": (0, 1, 2)}),
        [2, 2],
    ),
    "accumulate_tasks": (lambda tx: mtl.accumulate_tasks(tx, T, every_k=2), [1]),
    "skip_nonfinite_tasks": (lambda tx: mtl.skip_nonfinite_tasks(tx, T), [2]),
    "chain": (lambda tx: optax.chain(tx, optax.scale(-1.0)), [2]),
}


@pytest.mark.parametrize("name", AROUND)
def test_wrappers_take_a_scheduled_method(name):
    """The count is that of the updates of the method itself."""
    wrap, wanted = AROUND[name]
    tx = wrap(mtl.cagrad(T, c=optax.linear_schedule(0.0, 0.5, 2)))
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for _ in range(2):
        _, state = update(STACKED, state, PARAMS)
    assert counts(state) == wanted
    assert update._cache_size() == 1


def test_injected_beside_a_schedule():
    """Numbers are injected; what is static, or a dict, may hold a schedule of ours."""
    inject = optax.inject_hyperparams(mtl.cagrad, static_args=("num_tasks", "c"))
    tx = inject(T, c=changing(0.0, 0.5), preference=[0.2, 0.3, 0.5])
    plain = mtl.cagrad(T, c=changing(0.0, 0.5), preference=[0.2, 0.3, 0.5])
    state, same = tx.init(PARAMS), plain.init(PARAMS)
    for _ in range(2):
        got, state = jax.jit(tx.update)(STACKED, state, PARAMS)
        wanted, same = jax.jit(plain.update)(STACKED, same, PARAMS)
        chex.assert_trees_all_close(got, wanted, rtol=1e-5)


def test_blocks_have_a_count_each():
    tx = mtl.cagrad(T, c=optax.linear_schedule(0.0, 0.5, 2), granularity="leaf")
    state = tx.init(PARAMS)
    _, state = jax.jit(tx.update)(STACKED, state, PARAMS)
    assert state.weighting.count.tolist() == [1, 1]
