"""What metrics reports of each method, through chains and wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from methods import METHODS

import mtl_optax as mtl

T = 3
NAMES = ("aux", "lm", "seg")
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
STACKED = {
    "w": jnp.array([[3.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]),
    "b": jnp.array([4.0, 0.0, 0.0]),
}
PAIRS = ["cosine/aux/lm", "cosine/aux/seg", "cosine/lm/seg"]


def keys_of(method, held):
    keys = []
    if "task_weights" in held:
        keys += [f"weight/{name}" for name in NAMES]
    if method.family == "gramian":
        keys += [f"norm/{name}" for name in NAMES] + PAIRS + ["conflict_fraction"]
    return keys


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_reports_what_the_state_holds(method):
    tx = mtl.skip_nonfinite_tasks(
        optax.chain(method.make(T), optax.scale_by_adam()), num_tasks=T
    )

    def report():
        _, state = tx.update(STACKED, tx.init(PARAMS), PARAMS, **extras)
        return mtl.metrics(state, NAMES)

    extras = method.extras(T, PARAMS)
    shapes = jax.eval_shape(report)
    state = jax.eval_shape(method.make(T).init, PARAMS)
    held = getattr(state, "_fields", ())
    skipped = [f"nonfinite/{name}" for name in NAMES]
    assert set(shapes) == {*keys_of(method, held), *skipped}
    assert all(value.shape == () for value in shapes.values())
    if not keys_of(method, held):
        with pytest.raises(ValueError, match="nothing to report"):
            mtl.metrics(method.make(T).init(PARAMS))


def test_values():
    tx = mtl.mgda(T)

    @jax.jit
    def step(active):
        _, state = tx.update(STACKED, tx.init(PARAMS), PARAMS, active=active)
        return state, mtl.metrics(state, {"seg": 0.0, "lm": 1.0, "aux": 2.0})

    state, report = step(jnp.ones(T, bool))
    np.testing.assert_allclose([report[f"norm/{n}"] for n in NAMES], [5, 1, 2], 1e-6)
    np.testing.assert_allclose([report[p] for p in PAIRS], [-0.6, 0, 0], atol=1e-6)
    np.testing.assert_allclose(report["conflict_fraction"], 1 / 3)
    weights = [report[f"weight/{n}"] for n in NAMES]
    np.testing.assert_array_equal(weights, mtl.task_weights(state))
    # Of a missing task nothing is known, so it is no part of the share.
    _, report = step(jnp.array([True, True, False]))
    assert report["conflict_fraction"] == 1
    assert report["norm/seg"] == report["cosine/aux/seg"] == 0


def test_blocks():
    tx = mtl.mgda(T, granularity="leaf")
    _, state = tx.update(STACKED, tx.init(PARAMS), PARAMS)
    report = mtl.metrics(state)
    weights = mtl.task_weights(state)
    for task in range(T):
        for block in range(2):
            assert report[f"weight/{task}/{block}"] == weights[block, task]
    # Norms and cosines are those of all leaves together.
    np.testing.assert_allclose([report[f"norm/{t}"] for t in range(T)], [5, 1, 2])
    np.testing.assert_allclose(report["cosine/0/1"], -0.6, 1e-6)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "b"), "abc", {"a": 1.0}])
def test_wrong_names(names):
    state = mtl.mgda(T).init(PARAMS)
    with pytest.raises(ValueError, match="each of the 3 tasks once"):
        mtl.metrics(state, names)


def test_names_of_lazy_gradients_and_of_arrays():
    losses, lazy = mtl.lazy_task_grads(lambda p: {"b": p**2, "a": p})(jnp.array(2.0))
    tx = mtl.unitary(2)
    _, state = tx.update(lazy, tx.init(jnp.array(2.0)), jnp.array(2.0))
    assert list(mtl.metrics(state, lazy)) == ["weight/a", "weight/b"]
    assert list(mtl.metrics(state, losses)) == ["weight/0", "weight/1"]


def test_several_of_a_kind_are_an_error():
    tx = mtl.on_shared(mtl.mgda(T), labels={"w": (0, 1), "b": (0, 1, 2)})
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="holds 2 values of task_weights"):
        mtl.metrics(state)
    assert "weight/0" in mtl.metrics(state["0,1"])


def test_the_former_name_of_the_cosines():
    state = mtl.mgda(T).init(PARAMS)
    assert "former name" in mtl.conflicts.__doc__
    np.testing.assert_array_equal(mtl.conflicts(state), mtl.task_cosines(state))


def two_tasks(gramian=((1.0, -0.5), (-0.5, 4.0))):
    params = {"w": jnp.zeros(2)}
    rows = np.linalg.cholesky(np.array(gramian))
    tx = mtl.mgda(2)
    return tx.update({"w": jnp.asarray(rows)}, tx.init(params), params)[1]


@pytest.mark.parametrize(
    "names",
    [
        {"lm": 1.0, "aux": 2.0},
        {"lm": 1.0, "aux": 2.0}.keys(),
        {"lm", "aux"},
        ("aux", "lm"),
    ],
    ids=["dict", "keys", "set", "tuple"],
)
def test_names_come_in_any_form_that_has_an_order(names):
    report = mtl.metrics(two_tasks(), names)
    np.testing.assert_allclose(report["norm/aux"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(report["norm/lm"], 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    "losses", [np.array([0.3, 0.5]), jnp.ones(2), (jnp.ones(()), jnp.ones(())), [1, 0]]
)
def test_losses_without_names_give_indices(losses):
    assert {"weight/0", "weight/1"} <= set(mtl.metrics(two_tasks(), losses))


def test_names_whose_keys_would_be_one():
    tx, params = mtl.mgda(4), {"w": jnp.zeros(4)}
    _, state = tx.update({"w": jnp.eye(4)}, tx.init(params), params)
    with pytest.raises(ValueError, match="give the same key"):
        mtl.metrics(state, ["a", "a/b", "b/c", "c"])


def test_axes_of_steps_are_not_taken_for_blocks():
    states = jax.tree.map(lambda x: jnp.stack([x, x]), two_tasks())
    states = jax.tree.map(lambda x: jnp.stack([x, x]), states)
    with pytest.raises(ValueError, match=r"use jax.vmap\(mtl_optax.metrics\)"):
        mtl.metrics(states)
