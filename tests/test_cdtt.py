"""The task tensioner over several steps, against its definition vector by vector."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadprog
from method_runs import lengths
from problems import ORTH, flat, pair, params_of, random_matrix, tree_of

import mtl_optax as mtl


@functools.cache
def compiled(num_tasks, options):
    tx = mtl.cdtt(num_tasks, **dict(options))
    return tx, jax.jit(tx.update)


def trajectory(matrices, losses, **options):
    """Every update of cdtt on these gradients, in float64 if that is on."""
    tx, update = compiled(len(matrices[0]), tuple(options.items()))
    state, directions = tx.init(params_of(tree_of(matrices[0]))), []
    for matrix, of_step in zip(matrices, losses, strict=True):
        stacked = tree_of(matrix, jnp.result_type(float))
        step, state = update(stacked, state, losses=jnp.asarray(of_step))
        directions.append(flat(step))
    return directions


def center_of(matrix):
    """The shortest vector in the hull of unit gradients, scaled to weights of sum 1."""
    units = matrix / lengths(matrix)[:, None]
    num_tasks = len(matrix)
    gram = units @ units.T + 1e-14 * np.eye(num_tasks)
    constraints = np.concatenate([np.ones((num_tasks, 1)), np.eye(num_tasks)], axis=1)
    bounds = np.concatenate([[1.0], np.zeros(num_tasks)])
    best = quadprog.solve_qp(gram, np.zeros(num_tasks), constraints, bounds, meq=1)[0]
    return best @ units / np.sum(best / lengths(matrix))


def pulled(matrix, center, ratios, losses, alpha=0.3):
    tension = alpha / (1 + np.exp(np.e - np.e * (ratios + np.log10(losses)))) + 1
    apart = matrix - center
    return center + ((tension - alpha) / lengths(apart)) @ apart


def turned(gradient, update):
    """Where the line between both meets the plane orthogonal to the gradient."""
    if gradient @ update >= 0:
        return update
    square = gradient @ gradient
    part = square / (square - gradient @ update)
    return gradient + part * (update - gradient)


def test_hand_example(x64):
    """Sum-one weights (2/3, 1/3) while the window fills, then tensions."""
    steps = trajectory([ORTH] * 12, [[1.0, 0.1]] * 12)
    for before in steps[:10]:
        np.testing.assert_allclose(before, [2 / 3, 2 / 3], rtol=0, atol=1e-12)
    for after in steps[10:]:
        np.testing.assert_allclose(after, [0.725444, 0.549113], rtol=0, atol=1e-6)


def test_hand_example_of_the_turn():
    """The definition, for the gradient (1, 0) and the update (-1/2, 1)."""
    got = turned(np.array([1, 0]), np.array([-0.5, 1]))
    np.testing.assert_allclose(got, [0, 2 / 3])


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
@pytest.mark.parametrize("size", [0.02, 0.2])
@pytest.mark.slow
def test_every_step_is_its_definition(x64, num_tasks, size):
    """Also with short gradients, which the pulls outweigh and the turns must mend."""
    window, turns = 3, 0
    rng = np.random.default_rng(num_tasks)
    for seed in range(8):
        scales = size * rng.uniform(0.2, 5.0, (8, num_tasks, 1))
        matrices = scales * np.stack(
            [random_matrix(num_tasks, width=6, seed=8 * seed + i) for i in range(8)]
        )
        losses = 10 ** rng.uniform(-2, 1, (8, num_tasks))
        norms = lengths(matrices)
        steps = trajectory(matrices, losses, window=window)
        for i, matrix in enumerate(matrices):
            wanted = center_of(matrix)
            if i >= window:
                ratios = np.sum(norms[i - window + 1 : i + 1], axis=0)
                ratios = ratios / np.sum(norms[i - window : i], axis=0)
                wanted = pulled(matrix, wanted, ratios, losses[i])
                for gradient in matrix:
                    turns += gradient @ wanted < 0
                    wanted = turned(gradient, wanted)
            np.testing.assert_allclose(steps[i], wanted, rtol=1e-6, atol=1e-9)
    assert turns


@pytest.mark.parametrize("cosine", [-0.99, -0.5, 0.5, 0.99])
@pytest.mark.parametrize("ratio", [1, 30, 1e4])
def test_two_tasks_are_never_harmed(cosine, ratio):
    for seed in range(5):
        for size in (1e-4, 1.0, 1e4):
            matrix = size * pair(cosine, ratio, seed=seed)
            losses = [[1e-6, 1e3], [1e3, 1e-6]][seed % 2]
            _, update = trajectory([matrix] * 2, [losses] * 2, window=1)
            cosines = matrix @ update / lengths(matrix) / np.linalg.norm(update)
            assert np.min(cosines) >= -1e-4


def test_opposite_gradients_give_exactly_zero_under_tension():
    row = random_matrix(1)[0]
    for ratio in (1.0, 3.0, 1e4):
        matrix = np.stack([row, -ratio * row])
        steps = trajectory([matrix] * 3, [[1e-6, 1e3]] * 3, window=1)
        np.testing.assert_array_equal(steps, 0)


def test_a_gradient_at_the_centre_does_not_pull():
    """Equal gradients, and losses that are no numbers to take a logarithm of."""
    matrix = np.tile(random_matrix(1), (3, 1))
    steps = trajectory([matrix] * 3, [[1.0, 0.0, -2.0]] * 3, window=1)
    for update in steps:
        np.testing.assert_allclose(update, matrix[0], rtol=1e-6)


def test_a_task_without_gradient_is_left_out():
    matrix = random_matrix(3)
    matrix[1] = 0
    losses = np.array([0.3, 1.0, 2.0])
    steps = trajectory([matrix] * 4, [losses] * 4, window=2)
    kept = [0, 2]
    alone = trajectory([matrix[kept]] * 4, [losses[kept]] * 4, window=2)
    np.testing.assert_allclose(steps, alone, rtol=1e-5)


@pytest.mark.slow
def test_tension_of_a_task_begins_with_its_own_full_window():
    """One that was away has no tension yet, and neither pulls nor is forgotten."""
    tx = mtl.cdtt(2, window=2)
    grads, losses = {"w": jnp.asarray(ORTH)}, jnp.array([1.0, 0.1])
    state = tx.init({"w": jnp.zeros(2)})
    for active in ([True, False], [True, False], [True, True]):
        mask = jnp.array(active)
        update, state = tx.update(grads, state, losses=losses, active=mask)
    np.testing.assert_array_equal(state.weighting.steps, [2, 1])
    # The first alone pulls, away from the second and past its plane, at (1, 0).
    np.testing.assert_allclose(update["w"], [1, 0], rtol=0, atol=1e-6)
