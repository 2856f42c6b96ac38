"""Constrained training in an order of priority, against Platt and Barr's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import mtl_optax as mtl

GRADS = {"w": jnp.eye(3)}  # whose combination shows the weights
PARAMS = {"w": jnp.zeros(3)}


def follow(tx, losses, masks=None):
    """Weights [N, T] over N steps, and the last state."""
    update = jax.jit(tx.update)
    state, rows = tx.init(PARAMS), []
    for i, of_step in enumerate(losses):
        active = None if masks is None else jnp.asarray(masks[i])
        step, state = update(GRADS, state, losses=jnp.asarray(of_step), active=active)
        np.testing.assert_array_equal(step["w"], mtl.task_weights(state))
        rows.append(np.asarray(step["w"], np.float64))
    return np.array(rows), state.weighting


def solve(losses_fn, start, steps, learning_rate, **options):
    """The parameters and multipliers that gradient steps end at."""
    tx = optax.chain(mtl.nmt(**options), optax.sgd(learning_rate))

    @jax.jit
    def run(x):
        def step(_, carry):
            x, state = carry
            _, grads = mtl.lazy_task_grads(losses_fn)(x)
            update, state = tx.update(grads, state, x)
            return x + update, state

        return lax.fori_loop(0, steps, step, (x, tx.init(x)))

    x, state = run(start)
    return x, state[0].weighting


def quadratic(x):
    return 0.5 * x**2, 0.5 * (x - 1) ** 2


def test_one_step_by_hand():
    tx = mtl.nmt(
        3,
        (0, 1, 2),
        multiplier_lr=0.5,
        targets=jnp.array([0.02, 9.0, jnp.nan]),
        stage_steps=0,
    )
    (weights,), state = follow(tx, [[0.12, 1.0, 1.0]])
    np.testing.assert_allclose(state.multipliers, [0.05, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(weights, [0.047619, 0, 0.952381], rtol=0, atol=1e-6)


def test_quadratic_with_a_given_target(x64):
    """min (x - 1)^2 / 2 with x^2 / 2 <= 0.02: x = 0.2, and (x - 1) + lambda x = 0."""
    x, state = solve(
        quadratic,
        jnp.array(1.0),
        10_000,
        0.1,
        num_tasks=2,
        priority=(0, 1),
        multiplier_lr=0.5,
        targets=jnp.array([0.02, jnp.nan]),
        stage_steps=0,
    )
    np.testing.assert_allclose(x, 0.2, rtol=1e-9)
    np.testing.assert_allclose(state.multipliers, [4, 0], rtol=1e-8)


def test_a_constraint_that_holds_costs_nothing(x64):
    """lambda stays 0 below the target: the second task alone is minimised."""
    x, state = solve(
        quadratic,
        jnp.array(0.0),
        500,
        0.1,
        num_tasks=2,
        priority=(0, 1),
        multiplier_lr=0.5,
        targets=jnp.array([0.6, jnp.inf]),
        stage_steps=0,
    )
    np.testing.assert_allclose(x, 1, rtol=1e-9)
    np.testing.assert_array_equal(state.multipliers, 0)


def test_stages_measure_what_later_ones_must_keep(x64):
    """Distances to two planes of R^3, then to a point, which gives way to both."""

    def two_planes_and_a_point(x):
        point = jnp.sum((x - 2) ** 2)
        return 0.5 * x[0] ** 2, 0.5 * (x[1] - 1) ** 2, 0.5 * point

    for priority in [(0, 1, 2), (1, 0, 2)]:
        x, state = solve(
            two_planes_and_a_point,
            jnp.full(3, -1.0),
            20_000,
            0.1,
            num_tasks=3,
            priority=priority,
            multiplier_lr=2.0,
            stage_steps=10,
        )
        np.testing.assert_array_equal(state.steps, 10)
        aims = np.asarray(state.targets)
        held = np.sqrt(2 * aims[:2])
        np.testing.assert_allclose(x, [held[0], 1 + held[1], 2], rtol=1e-4)
        wanted = [(2 - held[0]) / held[0], (1 - held[1]) / held[1], 0]
        np.testing.assert_allclose(state.multipliers, wanted, rtol=1e-3)


def test_targets_are_means_over_the_last_tenth_of_a_stage():
    losses = np.arange(60.0).reshape(20, 3)
    tx = mtl.nmt(3, (2, 0, 1), multiplier_lr=0.0, stage_steps=20)
    weights, state = follow(tx, losses)
    np.testing.assert_array_equal(weights, [[0, 0, 1]] * 20)
    np.testing.assert_array_equal(state.targets, [0, 0, np.mean(losses[-2:, 2])])
    np.testing.assert_array_equal(state.steps, [0, 0, 20])
    tx = mtl.nmt(3, (2, 0, 1), multiplier_lr=0.0, stage_steps=1)
    weights, state = follow(tx, losses[:4])
    np.testing.assert_array_equal(weights, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(state.targets, [3, 7, 2])


def test_the_order_of_priority_matters_and_not_that_of_the_tasks():
    """Relabelled tasks get relabelled weights."""
    losses = np.abs(np.random.default_rng(0).normal(size=(9, 3)))
    options = {"multiplier_lr": 1.0, "stage_steps": 2}
    plain, _ = follow(mtl.nmt(3, (0, 1, 2), **options), losses)
    order = np.array([2, 0, 1])
    moved, _ = follow(mtl.nmt(3, order.tolist(), **options), losses[:, [1, 2, 0]])
    np.testing.assert_array_equal(moved[:, order], plain)
    assert np.any((plain[:, :2] > 0) & (plain[:, 2:] > 0))  # some multiplier
    other, _ = follow(mtl.nmt(3, (1, 0, 2), **options), losses)
    assert np.any(other != plain)


def test_a_task_that_is_away_has_its_stage_when_it_comes_back():
    losses, away = np.ones((5, 3)), [False, True, True]
    masks = [away, away, [True] * 3, [True] * 3, away]
    tx = mtl.nmt(3, (0, 1, 2), multiplier_lr=0.5, stage_steps=1)
    weights, state = follow(tx, losses, masks)
    rows = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 0, 1]]
    np.testing.assert_array_equal(weights, rows)
    np.testing.assert_array_equal(state.steps, 1)


@pytest.mark.parametrize("priority", [(0, 1), (0, 0, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_priority_must_be_an_order_of_the_tasks(priority):
    with pytest.raises(ValueError, match=r"each task once.*most important first"):
        mtl.nmt(3, priority, multiplier_lr=0.5, stage_steps=1)


def test_what_cannot_be_measured_must_be_given():
    with pytest.raises(ValueError, match=r"no stage.*pass targets="):
        mtl.nmt(3, (0, 1, 2), multiplier_lr=0.5, stage_steps=0)
    with pytest.raises(ValueError, match="entries of priority must be a Python int"):
        mtl.nmt(2, jnp.array([0, 1]), multiplier_lr=0.5, stage_steps=1)
