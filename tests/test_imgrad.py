"""imgrad against the dual that defines it, by grids in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision
from method_runs import assert_same, direction
from simplex_grid import least_on_simplex

import mtl_optax as mtl


def by_definition(matrix, alpha):
    """Without the rescaling."""

    def norm(rows):
        return np.linalg.norm(rows, axis=-1)

    num_tasks = len(matrix)
    mean = matrix.mean(axis=0)
    shortest = least_on_simplex(lambda w: norm(w @ matrix), num_tasks) @ matrix
    mu = mean @ shortest / norm(mean) / norm(shortest)
    length = alpha * norm(mean)

    def dual(w):
        towards = w @ matrix
        return (1.5 - mu) * towards @ mean + mu * length * norm(towards)

    lifted = least_on_simplex(dual, num_tasks) @ matrix
    return mean + length * lifted / norm(lifted)


@pytest.mark.parametrize("num_tasks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_dual_by_a_grid(num_tasks):
    rng = np.random.default_rng(num_tasks)
    matrices = rng.standard_normal((8, num_tasks, 4))
    matrices *= rng.uniform(0.2, 2, (8, num_tasks, 1))
    alphas = np.array([0.2, 0.8, 1.5])

    def one(matrix, alpha):
        rule = mtl.imgrad.weighting(alpha=alpha, rescale=0)
        active = jnp.ones(num_tasks, bool)
        return rule.update(matrix @ matrix.T, (), active=active)[0]

    with precision("float64"):
        each = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
        found = np.asarray(each(jnp.asarray(matrices), jnp.asarray(alphas)))
    for matrix, weights in zip(matrices, found, strict=True):
        for alpha, each in zip(alphas, weights, strict=True):
            assert_same(each @ matrix, by_definition(matrix, alpha), 1e-6)


S = np.array([[3.0, 0.0], [-1.0, 2.0]])


@pytest.mark.parametrize(
    ("alpha", "wanted"), [(0.4, (0.992247, 1.565632)), (0.8, (1.259979, 2.101095))]
)
def test_hand_values(alpha, wanted):
    for rescale, divisor in enumerate([1, 1 + alpha**2, 1 + alpha]):
        got = direction("imgrad", S, alpha=alpha, rescale=rescale)
        assert_same(divisor * got, wanted, 1e-6)


def test_no_length_is_the_mean():
    np.testing.assert_array_equal(direction("imgrad", S, alpha=0.0, rescale=0), [1, 1])


@pytest.mark.parametrize("aside", [0.0, 1e-4, 1e-2])
def test_near_opposite_gradients_lift_the_worst_task_alone(aside):
    """The shortest vector of the hull is across the mean: mu is 0, or nearly."""
    matrix = np.array([[3.0, 0.0], [-1.0, aside]])
    mean = matrix.mean(axis=0)
    lifted = 0.8 * np.linalg.norm(mean) * matrix[1] / np.linalg.norm(matrix[1])
    assert_same(direction("imgrad", matrix, alpha=0.8, rescale=0), mean + lifted, 1e-6)


def test_at_stationary_points():
    # The second conflicts with the mean (1, 1), the others do not.
    matrix = np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 3.0]])
    wanted = (1 - 0.8 * np.sqrt(2), 1)
    assert_same(direction("imgrad", matrix, alpha=0.8, rescale=0), wanted, 1e-6)
    # None does, and what cancels has no direction: the mean alone.
    matrix = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    assert_same(direction("imgrad", matrix, alpha=0.8, rescale=0), (0, 1), 1e-6)


def test_where_gradients_cancel_the_mean_is_what_is_left():
    matrix = np.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(direction("imgrad", matrix, alpha=0.8, rescale=0), 0)
    matrix = np.array([[1.0, 1e-5], [-1.0, 1e-5]])
    got = direction("imgrad", matrix, alpha=0.8, rescale=0)
    np.testing.assert_array_equal(got, np.float32([0, 1e-5]))


def test_a_zero_gradient_counts_in_the_mean_alone():
    """The mean is shorter by a third, and so is what is added, with the same mu."""
    matrix = np.concatenate([S, np.zeros((1, 2))])
    pair = direction("imgrad", S, alpha=0.8, rescale=1)
    got = direction("imgrad", matrix, alpha=0.8, rescale=1)
    assert_same(got, pair * 2 / 3, 1e-6)
