"""EPO and PMGDA, and the linear programs they solve, against SciPy and definitions.

The definitions are written out task by task in float64; what several weights reach is
compared, not the weights.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_runs import seen
from scipy.optimize import linprog

import mtl_optax as mtl
from mtl_optax.core.solvers.linear_program import linear_program


def problem(num_tasks, seed):
    """Gradients with other lengths for odd seeds, losses, preference."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((num_tasks, 12))
    if seed % 2:
        matrix *= 10 ** rng.uniform(-2, 2, (num_tasks, 1))
    losses, preference = rng.uniform(0.1, 3, num_tasks), rng.uniform(0.1, 1, num_tasks)
    return seen(matrix), seen(losses), seen(preference)


@functools.cache
def weigher(name, num_tasks, **options):
    """`weigher(...)(matrix, losses, preference, **hyper)` is the weights, jitted."""

    @jax.jit
    def run(matrix, losses, preference, hyper):
        tx = getattr(mtl, name)(num_tasks, preference=preference, **hyper, **options)
        params = jnp.zeros(matrix.shape[1])
        _, state = tx.update(matrix, tx.init(params), params, losses=losses)
        return state.task_weights

    def weigh(matrix, losses, preference, **hyper):
        arrays = [jnp.asarray(x, jnp.float32) for x in (matrix, losses, preference)]
        return np.asarray(run(*arrays, hyper), np.float64)

    return weigh


def epo_program(matrix, losses, preference, eps, relax):
    """What to maximise over the simplex, and the rows and bounds of what must be."""
    num_tasks = len(losses)
    weighted = [p * loss for p, loss in zip(preference, losses, strict=True)]
    share = [each / sum(weighted) for each in weighted]
    uneven = sum(s * np.log(num_tasks * s) for s in share)
    adjust = np.zeros(num_tasks)
    for t in range(num_tasks):
        adjust[t] = preference[t] * (np.log(num_tasks * share[t]) - uneven)
    along = [float(row @ (adjust @ matrix)) for row in matrix]
    products = [[float(a @ b) for b in matrix] for a in matrix]
    if uneven <= eps:
        rows, bounds = list(products), [0.0] * num_tasks
        if not relax:
            rows.append(along)
            bounds.append(min(0.0, max(along)))
        return np.sum(products, axis=0), np.array(rows), np.array(bounds)
    rows, bounds = [], []
    for t in range(num_tasks):
        if weighted[t] == max(weighted) or max(along) <= 0:
            rows.append(products[t])
            bounds.append(0.0)
        elif along[t] <= 0:
            rows.append(products[t])
            bounds.append(along[t])
    return np.array(along), np.array(rows), np.array(bounds)


SLOWLY = pytest.param(10, marks=pytest.mark.slow)


@pytest.mark.parametrize("num_tasks", [1, 3, SLOWLY])
@pytest.mark.parametrize("eps", [1e-4, 100.0])
def test_epo_solves_its_linear_program(num_tasks, eps):
    ways = [False, True] if num_tasks == 3 else [False]
    for seed, relax in itertools.product(range(8), ways):
        matrix, losses, preference = problem(num_tasks, seed)
        objective, rows, bounds = epo_program(matrix, losses, preference, eps, relax)
        best = linprog(
            -objective / np.abs(objective).max(),
            A_ub=-rows / np.abs(rows).max(),
            b_ub=-bounds / np.abs(rows).max(),
            A_eq=np.ones((1, num_tasks)),
            b_eq=[1],
        )
        weigh = weigher("epo", num_tasks, relax=relax)
        weights = weigh(matrix, losses, preference, eps=eps)
        assert np.all(weights >= 0)
        assert abs(weights.sum() - 1) < 1e-6
        if best.status == 2:  # restricted to the ray, and no such descent
            assert eps > 1
            assert not relax
            assert np.all(matrix @ (weights @ matrix) >= -1e-5 * np.abs(rows).max())
            continue
        terms = np.abs(rows) @ weights + np.abs(bounds)
        assert np.all(rows @ weights - bounds >= -1e-5 * terms), seed
        gap = objective @ (best.x - weights) / np.abs(objective).max()
        assert gap <= 1e-5, seed


def pmgda_best(matrix, losses, preference, sigma):
    """The best least gain, and the unit gradient of h."""
    axis = preference / np.linalg.norm(preference)
    aside = losses - (losses @ axis) * axis
    slope = (aside / np.linalg.norm(aside)) @ matrix
    slope /= np.linalg.norm(slope)
    units = matrix / np.linalg.norm(matrix, axis=1)[:, None]
    units = np.append(units, slope[None], axis=0)
    gains = np.append(-matrix @ units.T, np.ones((len(matrix), 1)), axis=1)
    falls = np.append(-units @ slope, 0)
    best = linprog(
        np.append(np.zeros(len(units)), -1),
        A_ub=np.append(gains, falls[None], axis=0),
        b_ub=np.append(np.zeros(len(matrix)), -sigma),
        A_eq=np.append(np.ones(len(units)), 0)[None],
        b_eq=[1],
        bounds=[(0, None)] * len(units) + [(None, None)],
    )
    return best.x[-1], slope


@pytest.mark.parametrize("num_tasks", [3, SLOWLY])
def test_pmgda_off_the_ray_has_the_best_least_gain(num_tasks):
    weigh = weigher("pmgda", num_tasks)
    for seed, sigma in itertools.product(range(8), [0.1, 0.95]):
        matrix, losses, preference = problem(num_tasks, seed)
        best, slope = pmgda_best(matrix, losses, preference, sigma)
        update = weigh(matrix, losses, preference, sigma=sigma, eps=0.0) @ matrix
        assert slope @ update >= sigma - 1e-5
        assert np.linalg.norm(update) <= 1 + 1e-5
        assert abs(np.min(matrix @ update) - best) <= 1e-5 * np.abs(matrix).max()


def test_pmgda_of_two_tasks_by_looking_at_every_direction():
    """Shares on a fine grid, in the plane."""
    matrix, losses = np.array([[1.0, 0.0], [-1.0, 1.0]]), np.array([0.5, 2.0])
    aside = np.array([-1, 1]) / 2**0.5
    slope = aside @ matrix / np.linalg.norm(aside @ matrix)
    units = np.stack([matrix[0], matrix[1] / 2**0.5, slope])
    first, second = np.meshgrid(*[np.linspace(0, 1, 1001)] * 2)
    shares = np.stack([first, second, 1 - first - second], axis=-1)
    updates = shares[shares[..., 2] >= 0] @ units
    updates = updates[updates @ slope >= 0.8]
    best = np.max(np.min(updates @ matrix.T, axis=1))
    weights = weigher("pmgda", 2)(matrix, losses, np.ones(2), sigma=0.8)
    assert abs(np.min(matrix @ (weights @ matrix)) - best) < 2e-3


@pytest.mark.slow
def test_on_the_ray_pmgda_is_mgda_or_that_along_the_ray():
    matrix, _, preference = problem(3, 0)
    losses = 2 * preference
    params, grads = jnp.zeros(12), jnp.asarray(matrix, jnp.float32)
    weights = weigher("pmgda", 3)(matrix, losses, preference)
    tx = mtl.mgda(3)
    usual = tx.update(grads, tx.init(params))[1].task_weights
    np.testing.assert_allclose(weights, usual, rtol=1e-6)

    losses = losses + np.array([0.002, 0, 0])  # h is below 0.01, but has a gradient
    weights = weigher("pmgda", 3, predict="tangent")(matrix, losses, preference)
    axis = preference / np.linalg.norm(preference)
    slope = (losses - (losses @ axis) * axis) @ matrix
    parts = matrix - np.outer(matrix @ slope, slope) / (slope @ slope)
    grads = jnp.asarray(parts, jnp.float32)
    shortest = np.asarray(tx.update(grads, tx.init(params))[0])
    np.testing.assert_allclose(weights @ matrix, shortest, atol=1e-3)
    assert abs(weights @ matrix @ slope) <= 1e-4 * np.linalg.norm(slope)


def test_losses_of_any_size_and_zero_give_finite_weights():
    matrix, losses, preference = problem(3, 2)
    cases = [losses * 1e37, losses * 1e-37, 0 * losses, losses * [0, 1, 1]]
    for name, values in itertools.product(["epo", "pmgda"], cases):
        weights = weigher(name, 3)(matrix, values, preference)
        assert np.all(np.isfinite(weights))
        assert weights.any()
    weights = weigher("epo", 3)(matrix, losses, np.array([1.0, 0.0, 1.0]))
    assert np.all(np.isfinite(weights))


def test_an_infinite_loss_counts_as_a_huge_one():
    """As those do whose inverse is no number, above 8.5e37."""
    matrix, _, preference = problem(3, 2)
    for name in ("epo", "pmgda"):
        wanted = weigher(name, 3)(matrix, [1e30, 1, 2], preference)
        for largest in (2e38, np.inf):
            got = weigher(name, 3)(matrix, [largest, 1, 2], preference)
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_epo_on_the_ray_has_no_adjustment_from_rounding():
    """1/3 of three equal losses is no exact third: nothing may follow from that."""
    matrix, losses = problem(3, 4)[0], np.full(3, 0.7)
    equal = weigher("epo", 3)(matrix, losses, np.full(3, 1 / 3))
    np.testing.assert_array_equal(
        equal, weigher("epo", 3, relax=True)(matrix, losses, np.full(3, 1 / 3))
    )


@pytest.mark.parametrize("name", ["epo", "pmgda"])
def test_errors_of_the_preferences_methods(name):
    method = getattr(mtl, name)
    with pytest.raises(ValueError, match="eps must be at least 0"):
        method(2, eps=-1.0)
    with pytest.raises(ValueError, match="preference must have one entry a task"):
        method(2, preference=[1.0, 2.0, 3.0])
    tx = method(2)
    with pytest.raises(ValueError, match=f"{name} needs the extra argument losses="):
        tx.update(jnp.ones((2, 3)), tx.init(jnp.ones(3)))
    with pytest.raises(ValueError, match="sigma must be at most 1"):
        mtl.pmgda(2, sigma=1.5)
    with pytest.raises(ValueError, match="predict must be one of 'mgda', 'tangent'"):
        mtl.pmgda(2, predict="both")


def test_a_linear_program_without_a_solution_says_so():
    """x >= 0, x + y = 1, x >= 2."""
    normals = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    held = jnp.array([True, False, False, False])
    start, objective = jnp.array([0, 1], jnp.int32), jnp.array([0.0, 1.0])
    for least, feasible in ((0.25, True), (2.0, False)):
        bounds = jnp.array([1.0, 0.0, 0.0, least])
        point, found = linear_program(normals, bounds, objective, start, held)
        assert bool(found) == feasible
        if feasible:
            np.testing.assert_allclose(point, [0.25, 0.75])
