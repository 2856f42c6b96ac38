"""Gradients whose squares overflow or underflow float32: the update is right as ever.

Each method is held to it by `test_global_scale`; here are the forms of gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl

ROWS = np.array([[3.0, -1, 0.5], [-2, 2, 1], [0.5, 0, 1]], np.float32)
LARGE, SMALL = np.float32(2.0**67), np.float32(2.0**-67)
both = pytest.mark.parametrize("scale", [LARGE, SMALL])


def update_of(tx, gradients):
    params = jax.tree.map(lambda g: jnp.zeros_like(g[0]), gradients)
    return jax.jit(tx.update)(gradients, tx.init(params), params)


def test_each_block_has_a_unit_of_its_own():
    tx = mtl.mgda(3, granularity="leaf")
    long, short, usual = (
        update_of(tx, {"a": jnp.asarray(a * ROWS), "b": jnp.asarray(b * ROWS)})[0]
        for a, b in ((LARGE, SMALL), (SMALL, LARGE), (1, 1))
    )
    np.testing.assert_allclose(long["a"] / LARGE, usual["a"], rtol=1e-6)
    np.testing.assert_allclose(long["b"] / SMALL, usual["b"], rtol=1e-6)
    np.testing.assert_allclose(short["a"] / SMALL, usual["a"], rtol=1e-6)


@both
def test_lazy_gradients_and_those_at_features(scale):
    def losses_fn(params):
        return tuple(scale * jnp.dot(row, params["w"]) for row in jnp.asarray(ROWS))

    params, tx = {"w": jnp.ones(3)}, mtl.upgrad(3)
    wanted = update_of(tx, {"w": jnp.asarray(ROWS)})[0]["w"]
    features = mtl.feature_task_grads(
        lambda p: p["w"], lambda p, z: losses_fn({"w": z})
    )
    for grads_fn in (mtl.lazy_task_grads(losses_fn), features):
        _, lazy = grads_fn(params)
        update, _ = tx.update(lazy, tx.init(params), params)
        np.testing.assert_allclose(update["w"] / scale, wanted, rtol=2e-5)


def test_a_lane_with_usual_gradients_is_not_touched():
    tx = mtl.imtl_g(3)
    lanes = jnp.asarray(ROWS)[None] * jnp.array([1, LARGE, SMALL])[:, None, None]

    def update(gradients):
        return tx.update(gradients, tx.init(gradients[0]))[0]

    together = jax.jit(jax.vmap(update))(lanes)
    alone = jax.jit(jax.vmap(update))(lanes[:1])
    np.testing.assert_array_equal(together[0], alone[0])
    for lane, scale in ((1, LARGE), (2, SMALL)):
        np.testing.assert_allclose(together[lane] / scale, alone[0], rtol=1e-5)


@both
def test_a_missing_task_does_not_set_the_unit(scale):
    rows = np.stack([ROWS[0], ROWS[1], np.full(3, np.inf, np.float32)])
    tx, active = mtl.cagrad(3), jnp.array([True, True, False])
    state = tx.init(jnp.zeros(3))
    update, _ = tx.update(jnp.asarray(scale * rows), state, active=active)
    wanted, _ = tx.update(jnp.asarray(rows), state, active=active)
    np.testing.assert_allclose(update / scale, wanted, rtol=1e-5)


def test_cosines_and_norms_in_the_state():
    def report(scale):
        gradients = {"w": jnp.asarray(scale * ROWS)}
        report = mtl.metrics(update_of(mtl.mgda(3), gradients)[1])
        return {key: float(value) for key, value in report.items()}

    usual, long = report(1), report(LARGE)
    assert long["cosine/0/1"] == pytest.approx(usual["cosine/0/1"], rel=1e-6)
    # A norm whose square is no number is told as the largest that is one, about 1e17.
    assert 1e16 < long["norm/0"] < LARGE * usual["norm/0"]


@both
def test_normalised_updates(scale):
    step = mtl.safe_normalize()
    update, _ = step.update({"w": jnp.asarray(scale * ROWS[0])}, step.init(None))
    wanted = ROWS[0] / np.linalg.norm(ROWS[0])
    np.testing.assert_allclose(update["w"], wanted, rtol=1e-6)
    nothing, _ = step.update({"w": jnp.zeros(2), "none": ()}, step.init(None))
    assert not nothing["w"].any()


@both
def test_constants_of_a_program_are_not_squared_before_they_are_divided(scale):
    """XLA takes (c / x)^2 of a constant c for c^2 / x^2, which may be no number."""
    rows, step = jnp.asarray(scale * ROWS), mtl.safe_normalize()
    added = jax.jit(lambda x: step.update({"w": rows[0]}, step.init(x))[0])
    wanted = ROWS[0] / np.linalg.norm(ROWS[0])
    np.testing.assert_allclose(added(0.0)["w"], wanted, rtol=1e-6)
    tx = mtl.sam_gs(3, max_norm=None if scale < 1 else 1.0)
    got = jax.jit(lambda state: tx.update(rows, state))(tx.init(rows[0]))
    same = jax.jit(tx.update)(rows, tx.init(rows[0]))
    np.testing.assert_allclose(got[1].imbalance, same[1].imbalance, rtol=1e-5)
    np.testing.assert_allclose(got[0], same[0], rtol=1e-5)


# --- Long gradients beside short ones: rightly what float64 makes of them -------------

MIXED = {"one long": [2.0**67, 1, 1], "one short": [2.0**-67, 1, 1]}


def updates_from(make, rows, dtype, losses):
    """Two updates, for what a method remembers of the first."""
    with jax.enable_x64(dtype is np.float64):
        tx, gradients = make(), jnp.asarray(rows, dtype)
        update = jax.jit(lambda s: tx.update(gradients, s, losses=losses))
        first, state = update(tx.init(gradients[0]))
        return np.stack([first, update(state)[0]]).astype(np.float64)


TOGETHER = {
    "mgda": lambda: mtl.mgda(3),
    "upgrad": lambda: mtl.upgrad(3),
    "dualproj": lambda: mtl.dualproj(3),
    "nash_mtl": lambda: mtl.nash_mtl(3),
    "conflictfree": lambda: mtl.conflictfree(3),
    "modo": lambda: mtl.modo(3),
    "gradnorm": lambda: mtl.gradnorm(3, variant="softmax"),
    "cdtt": lambda: mtl.cdtt(3, window=1),
    "cso_project": lambda: mtl.cso_project(3, jnp.array([0, 1, 0])),
    "metabalance": lambda: mtl.metabalance(3),
    "sam_gs": lambda: mtl.sam_gs(3),
}


@pytest.mark.parametrize("scales", MIXED)
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.slow
def test_long_beside_short_gradients(name, scales):
    rows, losses = np.array(MIXED[scales])[:, None] * ROWS, np.array([0.5, 1, 2])
    got, wanted = (
        updates_from(TOGETHER[name], rows, dtype, losses.astype(dtype))
        for dtype in (np.float32, np.float64)
    )
    bound = 2e-5 * np.abs(wanted).max(axis=1, keepdims=True)
    assert (np.abs(got - wanted) <= bound).all(), (got, wanted)


def test_a_short_gradient_beside_usual_ones_counts():
    short = np.array([[3 * SMALL, 0], [-1, 1]], np.float32)
    update, _ = update_of(mtl.mgda(2), jnp.asarray(short))
    np.testing.assert_allclose(update, [1.5 * SMALL, 1.5 * SMALL], rtol=1e-6)
    update, _ = update_of(mtl.upgrad(2), jnp.asarray(short))
    np.testing.assert_allclose(update, [0, 0.5], atol=1e-6)  # not (-0.5, 0.5)


@both
def test_divisors_of_mgda_have_the_unit_of_gradients(scale):
    losses, like = jnp.array([0.5, 1, 2]), jnp.zeros(3)
    for normalization in ("l2", "loss+"):
        tx = mtl.mgda(3, normalization=normalization, apply_to="normalized")
        usual, large = (
            tx.update(s * jnp.asarray(ROWS), tx.init(like), losses=losses)[0]
            for s in (1, scale)
        )
        np.testing.assert_allclose(large, usual, rtol=1e-5)


def test_norms_that_cdtt_remembers_have_no_unit():
    tx, losses = mtl.cdtt(2, window=1), jnp.ones(2)
    gradients = jnp.eye(2) * 2.0**-38
    state = tx.init(gradients[0])
    for scale in (1, 0.25):  # squares of the second are near to underflow
        _, state = tx.update(scale * gradients, state, losses=losses)
        norms = state.weighting.norms.ravel()
        np.testing.assert_allclose(norms, scale * 2.0**-38, rtol=1e-6)


def test_the_gramian_beside_a_gradient_of_zero():
    rows = jnp.asarray(ROWS).at[1].set(0)
    _, state = update_of(mtl.mgda(3), rows)
    np.testing.assert_allclose(state.task_gramian, rows @ rows.T, rtol=1e-6)
