"""balancer against its definition, step by step, and at features."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from method_runs import assert_same

import mtl_optax as mtl

STEPS = np.random.default_rng(0).standard_normal((6, 3, 4)) * np.array(
    [[[10.0], [1.0], [0.01]]]
)
PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1]])


def by_definition(weights, total_norm, decay, eps):
    """One direction a step, of the tasks that are present."""
    history = [[] for _ in weights]
    for rows, present in zip(STEPS, PRESENT == 1, strict=True):
        for t in np.flatnonzero(present):
            history[t].append(np.linalg.norm(rows[t]))
        share = weights * present / max(np.sum(weights * present), 1e-30)
        update = np.zeros(4)
        for t in np.flatnonzero(present):
            ages = decay ** np.arange(len(history[t]))[::-1]
            usual = np.dot(ages, history[t]) / ages.sum()
            update += share[t] * total_norm / (eps + usual) * rows[t]
        yield update


@pytest.mark.parametrize(
    ("total_norm", "decay", "eps"), [(1.0, 0.999, 1e-12), (3.0, 0.5, 0.2), (1, 1, 0)]
)
def test_steps_by_the_definition(total_norm, decay, eps):
    """Absent tasks keep their mean, and leave their share to the others."""
    shares = {"c": 2.0, "a": 1.0, "b": 3.0}
    options = {"total_norm": total_norm, "decay": decay, "eps": eps}
    tx = mtl.balancer(3, weights=shares, **options)
    state = tx.init({"w": jnp.zeros(4)})
    wanted = by_definition(np.array([1.0, 3.0, 2.0]), **options)
    for rows, present, update in zip(STEPS, PRESENT == 1, wanted, strict=True):
        rows = jnp.where(present[:, None], jnp.asarray(rows, jnp.float32), jnp.nan)
        got, state = tx.update({"w": rows}, state, active=jnp.asarray(present))
        np.testing.assert_allclose(got["w"], update, rtol=1e-5, atol=1e-6)


def test_the_first_step_gives_the_shares():
    tx = mtl.balancer(2, weights=[1.0, 3.0])
    grads = {"w": jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.1]])}
    got, _ = tx.update(grads, tx.init({"w": jnp.zeros(3)}))
    assert_same(np.asarray(got["w"]), (0.15, 0.2, 0.75), 1e-6)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_norms_whose_squares_are_no_numbers(size):
    tx = mtl.balancer(2, total_norm=2.0, eps=0.0)
    grads = {"w": size * jnp.array([[3.0, 4.0], [0.0, 1.0]])}
    got, state = tx.update(grads, tx.init({"w": jnp.zeros(2)}))
    assert_same(np.asarray(got["w"]), (0.6, 1.8), 1e-6)
    norms = np.asarray(state.weighting.usual_norm)
    np.testing.assert_allclose(norms, [5 * size, size], rtol=1e-6)


def test_zero_gradients_have_weight_zero_and_stay_finite_after():
    tx = mtl.balancer(2, decay=0.5)
    state = tx.init({"w": jnp.zeros(2)})
    first, state = tx.update({"w": jnp.array([[0.0, 0.0], [0.0, 4.0]])}, state)
    np.testing.assert_allclose(first["w"], [0, 0.5])
    assert mtl.task_weights(state)[0] == 0
    # Its mean is 2/3 of the norm now: of steps with weights 1/2 and 1.
    second, _ = tx.update({"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}, state)
    np.testing.assert_allclose(second["w"], [0.75, 0.5], rtol=1e-6)


def test_norms_are_those_at_the_features():
    """Two tasks on one representation: the trunk gets its pull of the balanced sum."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)
    params = {
        "trunk": jnp.asarray(rng.standard_normal((3, 4)), jnp.float32),
        "heads": {"a": jnp.ones(4), "b": jnp.arange(4.0)},
    }

    def heads(params, z):
        return {
            "a": jnp.mean((z @ params["heads"]["a"]) ** 2),
            "b": 100 * jnp.mean(jnp.sin(z @ params["heads"]["b"])),
        }

    grads_fn = mtl.feature_task_grads(lambda params: x @ params["trunk"], heads)
    losses, lazy = grads_fn(params)
    shared = {"trunk": True, "heads": {"a": False, "b": False}}
    tx = mtl.on_shared(mtl.balancer(2, weights={"a": 1.0, "b": 3.0}), shared)
    got, _ = tx.update(lazy, tx.init(params), params, losses=losses)

    z = np.asarray(x @ params["trunk"], float)
    each = []
    for name, scale in (("a", 0.25), ("b", 0.75)):
        head = np.asarray(params["heads"][name], float)
        out = z @ head
        slope = 2 * out / 5 if name == "a" else 100 * np.cos(out) / 5
        cotangent = slope[:, None] * head
        each.append(scale * cotangent / np.linalg.norm(cotangent))
    wanted = np.asarray(x, float).T @ (each[0] + each[1])
    np.testing.assert_allclose(got["trunk"], wanted, rtol=2e-5, atol=1e-6)
    assert optax.tree.norm(got["heads"]) > 1  # the heads' gradients are their own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.5}, "decay must be at most 1; got 1.5"),
        ({"total_norm": -1.0}, "total_norm must be at least 0"),
        ({"weights": [1.0]}, r"weights must have one entry a task, shape \(2,\)"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        mtl.balancer(2, **options)
