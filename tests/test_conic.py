"""conic against brute force over directions, where the cone binds and where not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision
from method_runs import assert_same, direction

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


def weights_of(matrices, cosines, **options):
    """Of all matrices `[N, T, P]` and all cosines, `[N, C, T]`."""
    num_tasks = matrices.shape[1]

    def one(matrix, cosine):
        rule = mtl.conic.weighting(cosine=cosine, **options)
        active = jnp.ones(num_tasks, bool)
        return rule.update(matrix @ matrix.T, (), active=active)[0]

    each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(each)(jnp.asarray(matrices), jnp.asarray(cosines)))


@pytest.mark.parametrize("num_tasks", [2, 3, 4])
def test_no_direction_in_the_plane_gains_more(num_tasks):
    """With three and more tasks a fifth and more of these are Pareto stationary."""
    rng = np.random.default_rng(num_tasks)
    matrices = rng.standard_normal((30, num_tasks, 2))
    matrices *= rng.uniform(0.2, 2, (30, num_tasks, 1))
    with precision("float64"):
        found = weights_of(matrices, COSINES)
    binds = harms = 0
    for matrix, each in zip(matrices, found, strict=True):
        mean = matrix.mean(axis=0)
        size = np.linalg.norm(mean)
        for cosine, weights in zip(COSINES, each, strict=True):
            step = weights @ matrix
            way = step @ mean / size**2
            assert way >= cosine - 1e-12
            assert np.linalg.norm(step) <= (1 + 1e-12) * size
            gain, best = (matrix @ step).min(), best_gain(matrix, cosine)
            scale = size * np.linalg.norm(matrix, axis=1).max()
            assert -1e-12 * scale <= gain - best <= 2e-4 * scale
            binds += way < cosine + 1e-9
            harms += gain < -1e-9
    assert 10 < binds < 110
    assert harms > 2 * (num_tasks - 1)


def best_in_space(matrix, cosine):
    """The largest worst gain per length in three dimensions, by grids that shrink."""
    along = matrix.mean(axis=0) / np.linalg.norm(matrix.mean(axis=0))
    aside = np.linalg.svd(along[None])[2][1:]
    widest, centre, reach = np.arccos(cosine), np.zeros(2), np.arccos(cosine)
    for _ in range(12):
        grid = centre + reach * np.stack(
            np.meshgrid(*[np.linspace(-1, 1, 61)] * 2), axis=-1
        ).reshape(-1, 2)
        turn = np.linalg.norm(grid, axis=1)
        grid = grid * np.minimum(1, widest / np.maximum(turn, 1e-30))[:, None]
        turn = np.minimum(turn, widest)[:, None]
        steps = np.cos(turn) * along + np.sinc(turn / np.pi) * grid @ aside
        gains = (steps @ matrix.T).min(axis=1)
        centre, reach = grid[gains.argmax()], reach / 3
    return gains.max()


def test_no_direction_in_space_gains_more():
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((20, 3, 3)) + 0.3
    with precision("float64"):
        found = weights_of(matrices, COSINES)
    for matrix, each in zip(matrices, found, strict=True):
        size = np.linalg.norm(matrix.mean(axis=0))
        for cosine, weights in zip(COSINES, each, strict=True):
            step = weights @ matrix / size
            gap = best_in_space(matrix, cosine) - (matrix @ step).min()
            if (matrix @ step).min() > 0:  # else the best is not the longest
                assert abs(np.linalg.norm(step) - 1) <= 1e-12
            assert -1e-4 <= gap <= 1e-9


def test_hand_values_where_the_cone_binds_and_where_not():
    """MGDA's direction (1, 2) is at 18.4 degrees from the mean (1, 1)."""
    matrix = np.array([[3.0, 0.0], [-1.0, 2.0]])
    assert_same(direction("conic", matrix, cosine=0.8), (0.632456, 1.264911), 1e-6)
    # 18 degrees from 45, and the length of the mean
    turned = np.sqrt(2) * np.array([np.cos(np.pi * 0.35), np.sin(np.pi * 0.35)])
    cosine = float(np.cos(np.pi * 0.1))
    assert_same(direction("conic", matrix, cosine=cosine), turned, 1e-6)
    np.testing.assert_array_equal(direction("conic", matrix, cosine=1.0), [1, 1])
    along = direction("conic", matrix, preference=[0.9, 0.1], cosine=1.0)
    assert_same(along, (2.6, 0.2), 1e-7)


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


def test_where_gradients_cancel_the_mean_is_what_is_left():
    matrix = np.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(direction("conic", matrix), 0)
    # Too little for the Gramian to tell, but not for the sum.
    matrix = np.array([[1.0, 1e-5], [-1.0, 1e-5]])
    np.testing.assert_array_equal(direction("conic", matrix), np.float32([0, 1e-5]))


def test_a_zero_gradient_counts_in_the_mean_alone():
    matrix = np.array([[3.0, 0.0], [-1.0, 2.0], [0.0, 0.0]])
    pair = direction("conic", matrix[:2], cosine=0.97)
    assert_same(direction("conic", matrix, cosine=0.97), pair * 2 / 3, 1e-6)


def test_row_scales_spoil_no_digit():
    """A row a million times as short as the next still binds to its own digits."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((3, 12)) * np.array([1e-6, 1.0, 1e6])[:, None]
    narrow = [direction("conic", matrix, dtype=d, cosine=0.5) for d in ("float32",)]
    with precision("float64"):
        (exact,) = weights_of(np.float32(matrix)[None].astype(float), [0.5])
    exact = exact[0] @ np.float32(matrix).astype(float)
    assert_same(narrow[0], exact, 1e-6)
