"""conic against brute force over directions, where the cone binds and where not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision
from method_runs import assert_same, direction
from simplex_grid import least_on_simplex

import mtl_optax as mtl

COSINES = np.array([0.0, 0.3, 0.8, 0.95])
ANGLES = 20_001


def best_gain(matrix, cosine):
    """Of steps in the plane no longer than g0 that go `cosine` of its way."""
    mean = matrix.mean(axis=0)
    length = np.linalg.norm(mean)
    along, aside = mean / length, np.array([-mean[1], mean[0]]) / length
    angles = np.linspace(-1, 1, ANGLES) * np.arccos(cosine)
    steps = np.cos(angles)[:, None] * along + np.sin(angles)[:, None] * aside
    gains = (steps @ matrix.T).min(axis=1)
    # What harms is best made shorter, as long as it goes its way.
    way = np.maximum(np.cos(angles), 1e-12)
    return length * np.max(np.where(gains < 0, gains * cosine / way, gains))


@functools.cache
def compiled(num_tasks):
    """Weights `[N, C, T]` of Gramians and cosines."""

    def one(gramian, cosine, preference):
        rule = mtl.conic.weighting(cosine=cosine, preference=preference)
        return rule.update(gramian, (), active=jnp.ones(num_tasks, bool))[0]

    each = jax.vmap(one, (None, 0, None))
    return jax.jit(jax.vmap(each, (0, None, None)))


def weights_of(matrices, preference=None):
    """In float64, of 30 matrices for all COSINES."""
    num_tasks = matrices.shape[1]
    uniform = np.full(num_tasks, 1 / num_tasks)
    preference = uniform if preference is None else np.asarray(preference)
    with precision("float64"):
        args = matrices @ matrices.mT, COSINES, preference
        return np.asarray(compiled(num_tasks)(*map(jnp.asarray, args)))


@pytest.mark.parametrize("num_tasks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_no_direction_in_the_plane_gains_more(num_tasks):
    """With three tasks a fifth of these are Pareto stationary."""
    rng = np.random.default_rng(num_tasks)
    matrices = rng.standard_normal((30, num_tasks, 2))
    matrices *= rng.uniform(0.2, 2, (30, num_tasks, 1))
    found = weights_of(matrices)
    binds = harms = 0
    for matrix, each in zip(matrices, found, strict=True):
        mean = matrix.mean(axis=0)
        size = np.linalg.norm(mean)
        for cosine, weights in zip(COSINES, each, strict=True):
            step = weights @ matrix
            way = step @ mean / size**2
            assert way >= cosine - 1e-10
            assert np.linalg.norm(step) <= (1 + 1e-10) * size
            gain, best = (matrix @ step).min(), best_gain(matrix, cosine)
            scale = size * np.linalg.norm(matrix, axis=1).max()
            assert -1e-10 * scale <= gain - best <= 2e-4 * scale
            binds += way < cosine + 1e-9
            harms += gain < -1e-9
    assert 10 < binds < 110
    assert harms > 2 * (num_tasks - 1)


def bound_in_space(matrix, cosine):
    """What no step of length 1 in the cone exceeds: the dual, at its least."""
    mean = matrix.mean(axis=0) / np.linalg.norm(matrix.mean(axis=0))
    sine = np.sqrt(1 - cosine**2)

    def most(weights):
        """The largest gain of these mixtures of tasks over the cone."""
        mixed = weights @ matrix
        along, length = mixed @ mean, np.linalg.norm(mixed, axis=1)
        aside = np.sqrt(np.maximum(length**2 - along**2, 0))
        edge = cosine * along + sine * aside
        return np.where(along >= cosine * length, length, edge)

    return most(least_on_simplex(most, len(matrix))[None])[0]


@pytest.mark.slow
def test_no_direction_in_space_gains_more():
    """Nor than the dual allows, which is brute force over mixtures of tasks."""
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((30, 3, 3)) + 0.3
    found = weights_of(matrices)
    for matrix, each in zip(matrices, found, strict=True):
        size = np.linalg.norm(matrix.mean(axis=0))
        some = rng.standard_normal((4000, 3))
        some /= np.linalg.norm(some, axis=1, keepdims=True)
        for cosine, weights in zip(COSINES, each, strict=True):
            step = weights @ matrix / size
            gain = (matrix @ step).min()
            assert abs(np.linalg.norm(step) - 1) <= 1e-10
            assert abs(bound_in_space(matrix, cosine) - gain) <= 1e-7
            allowed = some[some @ matrix.mean(axis=0) >= cosine * size]
            assert (allowed @ matrix.T).min(axis=1).max() <= gain


def test_hand_values_where_the_cone_binds_and_where_not():
    """MGDA's direction (1, 2) is at 18.4 degrees from the mean (1, 1)."""
    matrix = np.array([[3.0, 0.0], [-1.0, 2.0]])
    assert_same(direction("conic", matrix, cosine=0.8), (0.632456, 1.264911), 1e-6)
    # 18 degrees from 45, and the length of the mean
    turned = np.sqrt(2) * np.array([np.cos(np.pi * 0.35), np.sin(np.pi * 0.35)])
    cosine = float(np.cos(np.pi * 0.1))
    assert_same(direction("conic", matrix, cosine=cosine), turned, 1e-6)
    np.testing.assert_array_equal(direction("conic", matrix, cosine=1.0), [1, 1])


def test_a_preference_turns_the_axis_of_the_cone():
    """(2.6, 0.2) is the axis, and MGDA's direction 59 degrees from it."""
    matrices = np.tile([[3.0, 0.0], [-1.0, 2.0]], (30, 1, 1))
    found = weights_of(matrices, [0.9, 0.1])[0] @ matrices[0]
    length = np.hypot(2.6, 0.2)
    assert_same(found[0], length * np.array([1, 2]) / np.sqrt(5), 1e-9)
    turned = np.arctan2(0.2, 2.6) + np.arccos(0.8)
    assert_same(found[2], length * np.array([np.cos(turned), np.sin(turned)]), 1e-9)


STATIONARY = np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 3.0]])


@pytest.mark.parametrize(
    ("cosine", "wanted"),
    [
        # Across both opposite rows, at 45 degrees from the mean (1, 1), where it may.
        (0.0, (0, np.sqrt(2))),
        (0.7, (0, np.sqrt(2))),
        # As near to it as it may.
        (float(np.cos(np.pi / 6)), np.sqrt(2) * np.array([0.258819, 0.965926])),
    ],
)
def test_where_no_step_helps_every_task(cosine, wanted):
    assert_same(direction("conic", STATIONARY, cosine=cosine), wanted, 1e-6)


def test_a_step_that_only_harms_is_short():
    """Opposite rows: the less far along the mean, the less the second is harmed."""
    matrix = np.array([[3.0, 0.0], [-1.0, 0.0]])
    assert_same(direction("conic", matrix, cosine=0.75), (0.75, 0), 1e-6)
    np.testing.assert_array_equal(direction("conic", matrix, cosine=0.0), 0)


def test_where_every_step_harms_it_is_the_vertex_that_harms_least():
    """Of the linear program that is left where no length binds, its third vertex."""
    rows = [[0, -1, -2], [-1, -3, 1], [1, -1, 1], [0, 1, 1], [1, 2, 1]]
    wanted = np.array([108, -27, 18]) / 220  # harms by 0.0409, that before by 0.0692
    # To what float32 leaves of a step in which the rows all but cancel.
    assert_same(direction("conic", np.float64(rows), cosine=0.5), wanted, 1e-4)


def test_where_gradients_cancel_the_mean_is_what_is_left():
    matrix = np.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(direction("conic", matrix, cosine=0.5), 0)
    # Too little for the Gramian to tell, but not for the sum.
    matrix = np.array([[1.0, 1e-5], [-1.0, 1e-5]])
    np.testing.assert_array_equal(
        direction("conic", matrix, cosine=0.5), np.float32([0, 1e-5])
    )


def test_a_zero_gradient_counts_in_the_mean_alone():
    matrix = np.array([[3.0, 0.0], [-1.0, 2.0], [0.0, 0.0]])
    pair = direction("conic", matrix[:2], cosine=0.97)
    assert_same(direction("conic", matrix, cosine=0.97), pair * 2 / 3, 1e-6)


def test_row_scales_spoil_no_digit():
    """A row a million times as short as the next still binds to its own digits."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((3, 12)) * np.array([1e-6, 1.0, 1e6])[:, None]
    narrow = direction("conic", matrix, cosine=0.8)
    exact = np.float32(matrix).astype(float)
    exact = weights_of(np.tile(exact, (30, 1, 1)))[0, 2] @ exact
    assert_same(narrow, exact, 1e-6)
