"""What the papers prove, and what rounding must not take away.

The first part runs over the rows of methods.py that claim a property; the second holds
each method to the equations that define it. Everything is measured in float64 from
what a float32 user gets.
"""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quadprog
from conftest import precision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from methods import BY_NAME, METHODS
from problems import HAND, flat, hostile, pair, params_of, random_matrix, tree_of

import mtl_optax as mtl

WIDTH = 12
EPS = float(np.finfo(np.float32).eps)
# Many tasks repeat what few show; their compilation is what takes the time.
TASKS = [1, 2, 3, pytest.param(10, marks=pytest.mark.slow)]
TASKS.append(pytest.param(50, marks=pytest.mark.slow))
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def claiming(name):
    rows = [method for method in METHODS if name in method.claims]
    assert rows, name
    return pytest.mark.parametrize("method", rows, ids=lambda method: method.name)


def columns(num_tasks):
    """One width for each task count, so that a method compiles once for it."""
    return max(WIDTH, 2 * num_tasks)


@functools.cache
def compiled(method, num_tasks, names=()):
    """One update of a fresh state; hyper-parameters called `names` are traced."""

    def step(stacked, hyper, extras):
        tx = method.make(num_tasks, **dict(zip(names, hyper, strict=True)))
        params = params_of(stacked)
        return tx.update(stacked, tx.init(params), params, **extras)

    return jax.jit(step)


def run(method, matrix, extras=None, dtype="float32", **hyper):
    """Direction [P] in float64, and the new state."""
    num_tasks, width = matrix.shape
    stacked = tree_of(matrix, dtype, columns(num_tasks))
    if extras is None:
        extras = method.extras(num_tasks, params_of(stacked))
    step = compiled(method, num_tasks, tuple(hyper))
    update, state = step(stacked, tuple(map(jnp.asarray, hyper.values())), extras)
    return flat(update, width), state


def seen(matrix, dtype="float32"):
    """The matrix as the method sees it, in float64."""
    return np.asarray(matrix, dtype).astype(np.float64)


def direction(name, matrix, dtype="float32", **hyper):
    return run(BY_NAME[name], matrix, dtype=dtype, **hyper)[0]


def weights(name, matrix, dtype="float32", **hyper):
    state = run(BY_NAME[name], matrix, dtype=dtype, **hyper)[1]
    return np.asarray(state.task_weights, np.float64)


def lengths(matrix):
    return np.linalg.norm(matrix, axis=-1)


def cosines_with(matrix, update):
    """Cosine of the update with each task that has a gradient; 1 for a zero update."""
    matrix = matrix[lengths(matrix) > 0]
    if not update.any():
        return np.ones(1)
    # Scaled before squaring, which could leave the range of float64.
    update = update / np.abs(update).max()
    return (matrix / lengths(matrix)[:, None]) @ update / np.linalg.norm(update)


def assert_same(got, wanted, bound):
    """Equal up to `bound` relative to the larger of both."""
    size = max(np.max(np.abs(got)), np.max(np.abs(wanted)))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound * size)


# --- Over the rows --------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("num_tasks", TASKS)
def test_hostile_gradients_give_finite_updates(method, num_tasks):
    num_tasks = max(num_tasks, method.min_tasks)
    for name, matrix in hostile(num_tasks).items():
        update, state = run(method, matrix)
        assert np.all(np.isfinite(update)), name
        for leaf in jax.tree.leaves(state):
            assert np.all(np.isfinite(leaf)), name
        if not matrix.any():
            assert not update.any(), name


@EACH
@pytest.mark.parametrize("name", HAND)
def test_hand_checked_examples(method, name):
    matrix = HAND[name]
    extras = method.extras(2, params_of(tree_of(matrix, width=WIDTH)))
    if method.draw == "uniforms":
        extras["uniforms"] = jax.tree.map(
            lambda u: jnp.full_like(u, 0.25), extras["uniforms"]
        )
    update, _ = run(method, matrix, extras)
    np.testing.assert_allclose(update, method.hand[name], rtol=5e-6, atol=5e-6)


@EACH
@pytest.mark.parametrize("num_tasks", TASKS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_equal_rows_give_a_known_multiple(method, num_tasks, size):
    row = size * random_matrix(1)[0]
    num_tasks = max(num_tasks, method.min_tasks)
    update, _ = run(method, np.tile(row, (num_tasks, 1)))
    factor = method.common(num_tasks, np.linalg.norm(row))
    assert factor > 0
    assert_same(update, factor * row, 5 * method.tolerance)


@claiming("permutation_equivariant")
@pytest.mark.parametrize("num_tasks", TASKS[1:])
def test_order_of_tasks_does_not_matter(method, num_tasks):
    matrix = random_matrix(num_tasks, seed=7)
    order = np.random.default_rng(0).permutation(num_tasks)
    params = params_of(tree_of(matrix, width=columns(num_tasks)))
    extras = method.extras(num_tasks, params)
    permuted = dict(extras)
    if "losses" in extras:
        permuted["losses"] = extras["losses"][order]
    if method.draw == "order":
        place = jnp.asarray(np.argsort(order), jnp.int32)
        permuted["order"] = place[extras["order"][order]]
    if method.draw == "normals":
        permuted["normals"] = extras["normals"][order]
    update, _ = run(method, matrix, extras)
    again, _ = run(method, matrix[order], permuted)
    size = lengths(matrix).max() if method.degree else 1
    np.testing.assert_allclose(again, update, rtol=0, atol=5 * method.tolerance * size)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.homogeneous], ids=lambda method: method.name
)
@pytest.mark.parametrize("scale", [2.0**-33, 2.0**33])
def test_global_scale(method, scale):
    """Powers of two, so that rounding is the same on both sides."""
    matrix = random_matrix(3, seed=3)
    wanted, _ = run(method, matrix)
    update, _ = run(method, scale * matrix)
    assert_same(update / scale**method.degree, wanted, method.tolerance)


@claiming("simplex")
@pytest.mark.parametrize("num_tasks", TASKS)
def test_weights_are_on_the_simplex(method, num_tasks):
    for name, matrix in hostile(num_tasks).items():
        _, state = run(method, matrix)
        task_weights = np.asarray(state.task_weights, np.float64)
        assert np.all(task_weights >= 0), name
        assert abs(task_weights.sum() - 1) <= num_tasks * EPS, name


@claiming("non_conflicting")
@pytest.mark.parametrize("num_tasks", TASKS)
def test_update_harms_no_task(method, num_tasks):
    for name, matrix in hostile(num_tasks).items():
        update, _ = run(method, matrix)
        assert np.min(cosines_with(seen(matrix), update)) >= -1e-5, name
        # More tasks than dimensions surround 0, where the only such update is zero.
        solvable = num_tasks < WIDTH and name in ("random", "row_scales", "tiny")
        assert update.any() or not solvable, name


@claiming("row_scale_invariant_direction")
@pytest.mark.parametrize("num_tasks", TASKS)
def test_direction_does_not_depend_on_row_scales(method, num_tasks):
    matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=5)
    scales = 2.0 ** np.round(np.linspace(-20, 20, num_tasks))
    wanted, _ = run(method, matrix)
    update, _ = run(method, scales[:, None] * matrix)
    cosine = update @ wanted / np.linalg.norm(update) / np.linalg.norm(wanted)
    assert cosine >= 1 - 1e-5


def stationary(num_tasks, width=WIDTH, seed=0):
    """Rows with a positive combination that is zero, lengths within a factor 4."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((num_tasks, width))
    positive = rng.uniform(0.5, 2.0, num_tasks)
    matrix[-1] = -(positive[:-1] @ matrix[:-1]) / positive[-1]
    return matrix


@claiming("zero_at_stationary")
@pytest.mark.parametrize("num_tasks", TASKS[1:])
def test_exactly_zero_at_stationary_points(method, num_tasks):
    for seed in range(5):
        update, _ = run(method, stationary(num_tasks, seed=seed))
        np.testing.assert_array_equal(update, 0)


CANCELLING = ["mgda", "pcgrad", "imtl_g", "nash_mtl", "upgrad", "db_mtl"]
CANCELLING += ["fairgrad", "dualproj", "conflictfree", "gradvac"]


@pytest.mark.parametrize("name", CANCELLING)
@pytest.mark.parametrize("ratio", [1.0, 3.0, 1e6])
def test_exactly_zero_for_two_opposite_gradients(name, ratio):
    row = random_matrix(1)[0]
    update = direction(name, np.stack([row, -ratio * row]))
    np.testing.assert_array_equal(update, 0)


# --- The promise on norm ratios -------------------------------------------------------

RATIOS = [1, 10, 30, 100, 1e3, 1e6]


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_neither_of_two_tasks_is_harmed_at_any_ratio(name, ratio):
    for seed in range(20):
        matrix = pair(-0.8, ratio, seed=seed)
        update = direction(name, matrix)
        assert update.any()
        assert np.min(cosines_with(seen(matrix), update)) >= -1e-5


@pytest.mark.parametrize("ratio", RATIOS)
def test_pcgrad_is_twice_upgrad_for_two_tasks(ratio):
    for seed in range(5):
        matrix = pair(-0.8, ratio, seed=seed)
        wanted = 2 * direction("upgrad", matrix)
        assert_same(direction("pcgrad", matrix), wanted, 2e-6)


# --- The equations that define each method --------------------------------------------

SIZES = [2, 3, pytest.param(10, marks=pytest.mark.slow)]
SIZES.append(pytest.param(50, marks=pytest.mark.slow))


def smallest_norm(matrix):
    """Squared norm of the shortest vector in the hull, by quadprog in float64."""
    num_tasks = len(matrix)
    size = lengths(matrix).max()
    gram = (matrix / size) @ (matrix / size).T + 1e-13 * np.eye(num_tasks)
    constraints = np.concatenate([np.ones((num_tasks, 1)), np.eye(num_tasks)], axis=1)
    bounds = np.concatenate([[1.0], np.zeros(num_tasks)])
    best = quadprog.solve_qp(gram, np.zeros(num_tasks), constraints, bounds, meq=1)[0]
    return float(np.sum((best @ matrix) ** 2))


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("spread", [0, 2])
def test_mgda_reaches_the_smallest_norm(num_tasks, spread):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix *= np.logspace(-spread, spread, num_tasks)[:, None]
        update = direction("mgda", matrix)
        wanted = smallest_norm(seen(matrix))
        assert abs(update @ update - wanted) <= 1e-5 * wanted


@pytest.mark.parametrize("num_tasks", SIZES)
def test_mgda_gains_at_least_its_squared_norm_for_every_task(num_tasks):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        update = direction("mgda", matrix)
        task_weights = weights("mgda", matrix)
        gains, square = seen(matrix) @ update, update @ update
        assert np.all(gains >= (1 - 1e-5) * square)
        np.testing.assert_allclose(gains[task_weights > 0], square, rtol=1e-4)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_nash_mtl_solves_its_equation(num_tasks):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        update, a = direction("nash_mtl", matrix), weights("nash_mtl", matrix)
        assert np.all(a > 0)
        np.testing.assert_allclose(a * (seen(matrix) @ update), 1, rtol=1e-4)
        np.testing.assert_allclose(update @ update, num_tasks, rtol=1e-5)
        unclipped = direction("nash_mtl", matrix, max_norm=np.inf)
        assert_same(unclipped, update, 1e-5)
        clipped = direction("nash_mtl", matrix, max_norm=1.0)
        assert_same(clipped, update / num_tasks**0.5, 1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_imtl_g_projects_equally_on_every_task(num_tasks):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix *= np.logspace(-3, 3, num_tasks)[:, None]
        update = direction("imtl_g", matrix)
        cosines = cosines_with(seen(matrix), update)
        np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-4)
        np.testing.assert_allclose(weights("imtl_g", matrix).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_aligned_mtl_aligns(num_tasks):
    """Rows of B J are orthogonal and equally long; preferences e_t read off B."""
    matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=1)
    rows = [
        direction("aligned_mtl", matrix, preference=one)
        for one in np.eye(num_tasks, dtype=np.float32)
    ]
    gram = np.stack(rows) @ np.stack(rows).T
    smallest = np.linalg.svd(seen(matrix), compute_uv=False)[-1] ** 2
    wanted = smallest * np.eye(num_tasks)
    np.testing.assert_allclose(gram, wanted, rtol=0, atol=1e-4 * smallest)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_cagrad_reaches_the_dual_value_within_its_ball(num_tasks, c):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        update = direction("cagrad", matrix, c=c, rescale=0)
        task_weights = weights("cagrad", matrix, c=c, rescale=0)
        given = seen(matrix)
        mean = given.mean(axis=0)
        radius = c * np.linalg.norm(mean)
        assert np.linalg.norm(update - mean) <= (1 + 1e-5) * radius
        # The weights are 1/T + lambda w*: any w of the simplex bounds the value.
        simplex = np.maximum(task_weights - 1 / num_tasks, 0)
        mixed = simplex / simplex.sum() @ given
        dual = mixed @ mean + radius * np.linalg.norm(mixed)
        assert abs(np.min(given @ update) - dual) <= 1e-4 * abs(dual)


def test_cagrad_without_radius_is_the_mean():
    for num_tasks in (2, 3):
        for name, matrix in hostile(num_tasks).items():
            mean = direction("mean", matrix)
            update = direction("cagrad", matrix, c=0.0, rescale=1)
            np.testing.assert_array_equal(update, mean, err_msg=name)


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_cagrad_with_a_large_radius_goes_the_way_of_mgda(num_tasks):
    matrix = random_matrix(num_tasks, seed=2)
    update = direction("cagrad", matrix, c=1e4, rescale=2)
    shortest = direction("mgda", matrix)
    size = np.linalg.norm(seen(matrix).mean(axis=0)) / np.linalg.norm(shortest)
    assert_same(update, size * shortest, 1e-3)


def on_dual_cone(matrix, row):
    """The nearest vector that conflicts with no task, by quadprog in float64."""
    identity, zeros = np.eye(matrix.shape[1]), np.zeros(len(matrix))
    return quadprog.solve_qp(identity, row, matrix.T, zeros)[0]


@pytest.mark.parametrize("num_tasks", SIZES)
def test_upgrad_projects_on_the_dual_cone(num_tasks):
    """Task by task, on a well-conditioned problem."""
    matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=4)
    given = seen(matrix)
    total = sum(on_dual_cone(given, row) for row in given / num_tasks)
    assert_same(direction("upgrad", matrix), total, 1e-4)


def test_pcgrad_depends_on_the_order_it_is_given():
    matrix = np.array([[1.0, 0], [-1, 1], [-1, -2]])
    wanted = {
        ((1, 2), (0, 2), (0, 1)): (-1.2, -0.9),
        ((2, 1), (2, 0), (1, 0)): (0.2, -0.7),
    }
    for order, update in wanted.items():
        got, _ = run(BY_NAME["pcgrad"], matrix, {"order": jnp.asarray(order)})
        np.testing.assert_allclose(got, update, rtol=1e-5)


@pytest.mark.parametrize("uniform", [0.2, 0.3])
def test_graddrop_keeps_one_sign(uniform):
    """Column (1, -3) has purity 1/4."""
    matrix = np.array([[1.0, 2.0], [-3.0, 1.0]])
    uniforms = tree_of(np.full(2, uniform), width=WIDTH)
    update, _ = run(BY_NAME["graddrop"], matrix, {"uniforms": uniforms})
    np.testing.assert_allclose(update, [1.0 if uniform < 0.25 else -3.0, 3.0])


# From the losses: weights are the derivative of a scalar with respect to the losses.


STRUCTURE = {"optimizer", "window", "average"}


def step_on(name, losses, state=None, dtype="float32", active=None, **hyper):
    """Weights [T] in float64, and the new state, from losses alone."""
    with precision(dtype):
        num_tasks = len(losses)
        static = {k: hyper.pop(k) for k in STRUCTURE & hyper.keys()}
        previous = hyper.pop("previous_losses", None)
        hyper = jax.tree.map(lambda x: jnp.asarray(x, dtype), hyper)
        tx = BY_NAME[name].make(num_tasks, **static, **hyper)
        rows, params = jnp.ones((num_tasks, 1), dtype), jnp.zeros(1, dtype)
        state = tx.init(params) if state is None else state
        given = {} if active is None else {"active": jnp.asarray(active)}
        if previous is not None:
            given["previous_losses"] = jnp.asarray(previous, dtype)
        losses = jnp.asarray(losses, dtype)
        _, state = tx.update(rows, state, params, losses=losses, **given)
        return np.asarray(state.task_weights, np.float64), state


def _unit(vector):
    return vector / jnp.linalg.norm(vector)


def _pbi(losses, theta, preference, reference):
    point, axis = losses - reference, _unit(preference)
    along = point @ axis
    return along + theta * jnp.linalg.norm(point - along * axis)


def _cosmos(losses, mu, preference):
    return preference @ losses - mu * _unit(preference) @ _unit(losses)


def _famo(losses, min_losses):
    """Its logits are 0 at first, and c counts as constant."""
    above = losses - min_losses + 1e-8
    constant = 1 / jax.lax.stop_gradient(jnp.mean(1 / above))
    return constant * jnp.mean(jnp.log(above))


P, Z, N = np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.2, -0.3]), np.array([1.0, 2, 0.5])
# Name of the row, arguments, and the scalar as written in the paper.
SCALARS = {
    "gls": ("gls", {}, lambda losses: jnp.prod(losses) ** (1 / 3)),
    "scale_invariant": ("scale_invariant", {}, lambda x: jnp.sum(jnp.log(x))),
    "imtl_l": ("imtl_l", {"init": Z}, lambda x: jnp.sum(jnp.exp(Z) * x - Z)),
    "tchebycheff": (
        "tchebycheff",
        {"preference": P, "reference": Z},
        lambda losses: jnp.max(P * (losses - Z)),
    ),
    "pbi": (
        "pbi",
        {"theta": 2.0, "preference": P, "reference": Z},
        lambda losses: _pbi(losses, 2.0, P, Z),
    ),
    "cosmos": (
        "cosmos",
        {"mu": 2.0, "preference": P},
        lambda losses: _cosmos(losses, 2.0, P),
    ),
    "famo": ("famo", {"min_losses": Z}, lambda losses: _famo(losses, Z)),
}
for _mu in (0.01, 0.1, 1.0, 10.0):
    SCALARS[f"stch-{_mu}"] = (
        "stch",
        {"mu": _mu, "preference": P, "reference": Z},
        lambda x, mu=_mu: mu * jax.nn.logsumexp(P * (x - Z) / mu),
    )
    SCALARS[f"stch-log-{_mu}"] = (
        "stch",
        {"mu": _mu, "nadir": N},
        lambda x, mu=_mu: 3 * mu * jax.nn.logsumexp(jnp.log(x / N) / mu),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SCALARS)
def test_weights_are_the_derivative_of_the_scalar(case, dtype):
    name, hyper, scalar = SCALARS[case]
    for seed in range(5):
        losses = np.random.default_rng(seed).uniform(0.3, 3.0, 3).astype("float32")
        with precision("float64"):
            wanted = jax.grad(scalar)(jnp.asarray(losses, "float64"))
        got, _ = step_on(name, losses, dtype=dtype, **hyper)
        # A softmax at mu has rounding of 1/mu times that of the losses.
        error = np.finfo(dtype).eps * (100 + 20 / hyper.get("mu", 1))
        assert_same(got, np.asarray(wanted), error)


NADIR = ("stch", {"nadir": np.ones(5)})
NEED_POSITIVE = {
    "gls": ("gls", {}),
    "scale_invariant": ("scale_invariant", {}),
    "dwa": ("dwa", {}),
    "uw": ("uw", {}),
    "uw-sgd": ("uw", {"optimizer": optax.sgd(1.0)}),
    "imtl_l": ("imtl_l", {}),
    "imtl_l-sgd": ("imtl_l", {"optimizer": optax.sgd(1.0)}),
    "famo": ("famo", {}),
    "famo-sgd": ("famo", {"optimizer": optax.sgd(1.0)}),
    "stch-log": NADIR,
    "stch-log-0": ("stch", {"nadir": np.ones(5), "mu": 0.0}),
    "stch-log-tiny": ("stch", {"nadir": np.ones(5), "mu": 1e-30}),
}
TAKE_ANY = {
    "stch": ("stch", {}),
    "stch-0": ("stch", {"mu": 0.0}),
    "stch-tiny": ("stch", {"mu": 1e-30}),
    "tchebycheff": ("tchebycheff", {}),
    "pbi": ("pbi", {}),
    "cosmos": ("cosmos", {}),
}
HOSTILE_LOSSES = {
    "all": (0.0, -1.0, 1e-30, 1e30, float(np.finfo(np.float32).max)),
    "zero": (0.0,) * 5,
    "one_zero": (1.0, 2.0, 0.0, 1.0, 1.0),
    "one_negative": (1.0, -2.0, 0.5, 1.0, 1.0),
    "negative": (-1.0, -2.0, -1e30, -3.0, -1.0),
    "subnormal": (1e-40, 1.0, 1e-42, 2.0, 0.0),
    "huge": (3e38,) * 5,
}


@pytest.mark.parametrize("case", [*NEED_POSITIVE, *TAKE_ANY])
@pytest.mark.parametrize("name", HOSTILE_LOSSES)
def test_losses_of_any_size_and_sign_give_finite_weights(case, name):
    """Over several steps; where they must be positive, as if they had been clipped."""
    method, hyper = {**NEED_POSITIVE, **TAKE_ANY}[case]
    low = float(np.finfo(np.float32).tiny) ** 0.5
    state = clipped = None
    for turn in range(5):
        losses = np.roll(HOSTILE_LOSSES[name], turn).astype(np.float32)
        got, state = step_on(method, losses, state, **hyper)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
        if case in NEED_POSITIVE:
            in_range = np.clip(losses, low, 1 / low)
            wanted, clipped = step_on(method, in_range, clipped, **hyper)
            np.testing.assert_array_equal(got, wanted)


def test_gls_neither_under_nor_overflows():
    losses = np.logspace(-15, 15, 50)
    got, _ = step_on("gls", losses)
    np.testing.assert_allclose(50 * got * losses, 1, rtol=1e-4)


def test_scale_invariant_losses_all_weigh_the_same():
    losses = np.logspace(-18, 18, 5)
    got, _ = step_on("scale_invariant", losses)
    np.testing.assert_allclose(got * losses, 1, rtol=1e-5)


@pytest.mark.parametrize("mu", [0.0, 1e-38, 1e-20, 1e-6])
def test_stch_with_a_tiny_mu_is_tchebycheff(mu):
    for losses in ([0.5, 2.0, 1.5], [3.0, 1.0, 3.0], [0.0, 0.0, 0.0]):
        wanted, _ = step_on("tchebycheff", losses)
        got, _ = step_on("stch", losses, mu=mu)
        np.testing.assert_array_equal(got, wanted)


def test_stch_with_a_large_mu_is_the_weighted_mean():
    got, _ = step_on("stch", [0.5, 2.0, 1.5], mu=1e30, preference=P)
    np.testing.assert_allclose(got, P / 3, rtol=1e-6)


def test_tchebycheff_shares_ties_equally():
    got, _ = step_on("tchebycheff", [2.0, 1.0, 2.0])
    np.testing.assert_allclose(got, [1 / 6, 0, 1 / 6], rtol=1e-6)
    got, _ = step_on("tchebycheff", [2.0, 1.0, 4.0], preference=[0.5, 1.0, 0.25])
    np.testing.assert_allclose(got, np.array([0.5, 1.0, 0.25]) / 3, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_no_pull_where_losses_lie_on_the_preference(size):
    """To within rounding, which theta and mu/|L| would blow up."""
    for seed in range(10):
        wanted = np.random.default_rng(seed).uniform(0.1, 1.0, 3)
        losses = size * wanted
        got, _ = step_on("pbi", losses, preference=wanted, theta=100.0)
        np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), rtol=1e-5)
        got, _ = step_on("cosmos", losses, preference=wanted, mu=100.0)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_cosmos_of_zero_losses_is_the_weighted_sum():
    got, _ = step_on("cosmos", np.zeros(3), preference=P)
    np.testing.assert_allclose(got, P, rtol=1e-6)


def _ratio(seen, average, loss):
    """What DWA compares for one task, in windows of 2; `loss` is the new one."""
    if average == "sliding":
        new = [1.0] * 4 + seen + [loss]
        return np.mean(new[-2:]) / np.mean(new[-4:-2]) if len(seen) > 2 else 1.0
    closed = np.array(seen[: len(seen) // 2 * 2]).reshape(-1, 2).mean(axis=1)
    return closed[-1] / closed[-2] if len(closed) > 1 else 1.0


@pytest.mark.parametrize("average", ["epochs", "sliding"])
def test_dwa_gives_every_task_a_clock_of_its_own(average):
    """Against a replay of the steps at which each task was there."""
    rng = np.random.default_rng(0)
    history, state = [[], [], []], None
    for _ in range(20):
        losses, active = rng.uniform(0.5, 2.0, 3), rng.uniform(size=3) < 0.7
        got, state = step_on(
            "dwa", losses, state, active=active, window=2, average=average
        )
        pairs = zip(history, losses, strict=True)
        ratio = np.array([_ratio(seen, average, loss) for seen, loss in pairs])
        share = np.where(active, np.exp(ratio / 2), 0)
        wanted = active.sum() * share / max(share.sum(), 1)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        for t in np.flatnonzero(active):
            history[t].append(losses[t])


def test_stch_against_a_nadir_under_vmap():
    nadirs = jnp.array([[1.0, 2.0, 0.5], [3.0, 1.0, 1.0]])
    losses, everyone = jnp.array([0.5, 2.0, 1.5]), jnp.ones(3, bool)

    def weigh(nadir):
        rule = mtl.from_losses.stch.weighting(nadir=nadir)
        return rule.update(None, (), losses=losses, active=everyone)[0]

    for nadir, got in zip(nadirs, jax.vmap(weigh)(nadirs), strict=True):
        ratio = np.asarray(losses / nadir)
        np.testing.assert_allclose(got, 3 * ratio / ratio.sum() / losses, rtol=1e-5)


@pytest.mark.parametrize("name", ["imtl_l", "dwa", "famo", "rlw"])
def test_a_state_that_was_donated_leaves_the_method_able_to_start(name):
    method, params = BY_NAME[name], jnp.zeros(1)
    given = {"init": jnp.zeros(3)} if name == "imtl_l" else {}
    tx = method.make(3, **given)
    step = jax.jit(
        lambda state, extras: tx.update(jnp.ones((3, 1)), state, params, **extras),
        donate_argnums=0,
    )
    extras = method.extras(3, params)
    first, _ = step(tx.init(params), extras)
    again, _ = step(tx.init(params), extras)
    np.testing.assert_array_equal(again, first)


SGD = optax.sgd(1.0)


def logits_of(state):
    return np.asarray(state.weighting.logits.values)


def test_famo_lowers_the_logit_of_the_loss_that_fell_more():
    _, state = step_on("famo", [1.0, 2.0], optimizer=SGD, weight_decay=0.0)
    np.testing.assert_array_equal(logits_of(state), 0)
    _, again = step_on(
        "famo",
        [7.0, 7.0],
        state,
        optimizer=SGD,
        weight_decay=0.0,
        previous_losses=[0.5, 1.9],
    )
    np.testing.assert_allclose(logits_of(again), [-0.16046, 0.16046], rtol=1e-4)
    # Without the losses of the same batch, those of the next one.
    _, deferred = step_on("famo", [0.5, 1.9], state, optimizer=SGD, weight_decay=0.0)
    np.testing.assert_array_equal(logits_of(deferred), logits_of(again))
    _, decayed = step_on("famo", [7.0, 7.0], again, optimizer=SGD, weight_decay=0.5)
    np.testing.assert_allclose(logits_of(decayed), logits_of(again) / 2, atol=1e-6)


def test_famo_rests_where_all_losses_fall_equally_fast():
    """Adam would make full steps of the rounding of the logarithms."""
    losses, state = np.array([1.3, 7.7, 310.0, 25.0]), None
    for _ in range(10):
        _, state = step_on("famo", losses, state, weight_decay=0.0)
        losses = losses * 0.7
    np.testing.assert_array_equal(logits_of(state), 0)


def test_famo_learns_from_a_task_once_it_has_been_seen_twice():
    state = None
    for losses, active, moved in [
        ([1.0, 2.0, 9.0], [True, True, False], [False] * 3),
        ([0.5, 1.9, 9.0], [True] * 3, [True, True, False]),
        ([0.4, 9.0, 1.0], [True, False, True], [True, False, True]),
    ]:
        before = np.zeros(3) if state is None else logits_of(state)
        _, state = step_on("famo", losses, state, active=active)
        np.testing.assert_array_equal(logits_of(state) != before, moved)


@functools.cache
def random_weights(distribution, count=4000):
    """[count, 3] of three of four tasks."""
    active = jnp.array([True, False, True, True])
    rule = mtl.from_losses.rlw.weighting(0, distribution)

    def step(state, _):
        weights, state = rule.update(None, state, active=active)
        return state, weights

    drawn = jax.lax.scan(step, rule.init(4), length=count)[1]
    np.testing.assert_array_equal(drawn[:, 1], 0)
    np.testing.assert_allclose(np.sum(drawn, axis=1), 1, rtol=1e-6)
    assert np.all(drawn >= 0)
    return np.asarray(drawn, np.float64)[:, [0, 2, 3]]


@pytest.mark.parametrize(
    "distribution",
    ["normal", "uniform", "dirichlet", "bernoulli", "constrained_bernoulli"],
)
def test_rlw_favours_no_task(distribution):
    drawn = random_weights(distribution)
    error = 4 * drawn.std(axis=0) / len(drawn) ** 0.5
    assert np.all(np.abs(drawn.mean(axis=0) - 1 / 3) <= error)


def test_rlw_distributions_have_their_moments():
    drawn = random_weights("dirichlet")
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 18, rtol=0.1)
    drawn = random_weights("uniform")
    assert np.max(drawn.max(axis=1) / drawn.min(axis=1)) < np.e
    logs = np.log(random_weights("normal"))
    np.testing.assert_allclose(np.var(logs[:, 0] - logs[:, 1]), 2, rtol=0.1)
    assert np.all(np.isin(random_weights("constrained_bernoulli"), [0, 1]))


def test_rlw_bernoulli_draws_every_nonempty_set_equally_often():
    chosen = random_weights("bernoulli") > 0
    sets = chosen @ np.array([1, 2, 4])
    counts = np.bincount(sets, minlength=8)
    assert counts[0] == 0
    wanted = len(chosen) / 7
    assert np.all(np.abs(counts[1:] - wanted) <= 4 * wanted**0.5)


def test_rlw_random_normal_keeps_the_moments_it_drew():
    tx = mtl.rlw(3, key=0, distribution="random_normal")
    normals, params = np.array([0.5, -1.0, 2.0]), jnp.zeros(1)
    first = state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(
            jnp.ones((3, 1)), state, params, normals=jnp.asarray(normals, "float32")
        )
    moments = np.asarray(state.weighting.moments, np.float64)
    np.testing.assert_array_equal(moments, first.weighting.moments)
    wanted = np.exp(moments[:, 0] + moments[:, 1] * normals)
    np.testing.assert_allclose(state.task_weights, wanted / wanted.sum(), rtol=1e-5)


# From the gradients: each method against its recursion in NumPy.


def steps(tx, matrices, each):
    """Directions [S, P] of updates that follow one another, and the last state.

    `each` holds extra arguments, one entry a step.
    """
    update = jax.jit(tx.update)
    stacks = [tree_of(matrix) for matrix in matrices]
    params = params_of(stacks[0])
    state, rows = tx.init(params), []
    for i, stacked in enumerate(stacks):
        extras = {name: values[i] for name, values in each.items()}
        new, state = update(stacked, state, params, **extras)
        rows.append(flat(new))
    return np.stack(rows), state


@pytest.mark.parametrize("num_tasks", [3, 6, 20])
@pytest.mark.parametrize("missing", [0, 1])
def test_trimmed_mean_is_that_of_numpy(num_tasks, missing):
    """20 tasks are sorted by XLA, fewer by ourselves."""
    for trim_number in range((num_tasks - 1) // 2 + 1):
        matrix = seen(random_matrix(num_tasks, seed=trim_number))
        active = np.arange(num_tasks) != (1 if missing else -1)
        left = min(trim_number, (active.sum() - 1) // 2)
        middle = np.sort(matrix[active], axis=0)[left : active.sum() - left]
        tx = mtl.trimmed_mean(num_tasks, trim_number=trim_number)
        stacked = tree_of(np.where(active[:, None], matrix, np.nan))
        extras = {"active": jnp.asarray(active)} if missing else {}
        update, _ = tx.update(stacked, tx.init(None), **extras)
        assert_same(flat(update), middle.mean(axis=0), 1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("num_tasks", [5, 20])
def test_trimmed_mean_stays_among_the_honest(broken, num_tasks):
    matrix = random_matrix(num_tasks)
    honest = seen(matrix[2:])
    matrix[:2] = broken
    tx = mtl.trimmed_mean(num_tasks, trim_number=2)
    update = flat(tx.update(tree_of(matrix), tx.init(None))[0])
    assert np.all(honest.min(axis=0) <= update)
    assert np.all(update <= honest.max(axis=0))


@pytest.mark.parametrize("num_tasks", SIZES)
def test_db_mtl_brings_all_averages_to_the_largest_norm(num_tasks):
    """Against its recursion in float64: the averages, their norms and their sum."""
    rng = np.random.default_rng(num_tasks)
    matrices = rng.standard_normal((4, num_tasks, columns(num_tasks)))
    matrices *= np.logspace(-6, 6, num_tasks)[:, None]
    losses = rng.uniform(0.1, 3, (4, num_tasks))
    tx = mtl.db_mtl(num_tasks, beta=0.7, beta_sigma=0.5, eps=0.0)
    updates, state = steps(tx, matrices, {"losses": jnp.asarray(losses)})
    average = np.zeros(matrices.shape[1:])
    for n, (matrix, loss, update) in enumerate(
        zip(seen(matrices), seen(losses), updates, strict=True), start=1
    ):
        beta = 0.7 / n**0.5
        average = beta * average + (1 - beta) * matrix / loss[:, None]
        factors = lengths(average).max() / lengths(average)
        assert_same(update, factors @ average, 1e-5)
    np.testing.assert_allclose(state.task_weights, factors, rtol=1e-5)
    kept = np.stack(
        [
            flat(jax.tree.map(lambda y, t=t: y[t], state.averages))
            for t in range(num_tasks)
        ]
    )
    scaled = lengths(np.asarray(state.task_weights, np.float64)[:, None] * kept)
    np.testing.assert_allclose(scaled, scaled.max(), rtol=1e-5)


@pytest.mark.parametrize("loss", [0.0, -1.0, 1e-30])
def test_db_mtl_with_losses_that_have_no_logarithm(loss):
    tx = mtl.db_mtl(2, beta=0.0)
    losses = jnp.array([[loss, 1.0]])
    updates, _ = steps(tx, np.array([[[1.0, 0], [0, 1]]]), {"losses": losses})
    np.testing.assert_allclose(updates[0], [1e8, 1e8], rtol=1e-6)


def nearest_on_simplex(point):
    """By trying every support, for a few tasks."""
    best = None
    for bits in range(1, 2 ** len(point)):
        support = np.array([bits >> t & 1 for t in range(len(point))], bool)
        shifted = point - (point[support].sum() - 1) / support.sum()
        weights = np.where(support, shifted, 0)
        if np.all(weights >= 0):
            distance = np.sum((weights - point) ** 2)
            if best is None or distance < best[0]:
                best = distance, weights
    return best[1]


@pytest.mark.parametrize("projection", ["simplex", "softmax"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_moco_steps_weights_and_tracks(num_tasks, projection):
    """Against its recursion in float64; the larger gamma reaches the boundary."""
    rng = np.random.default_rng(num_tasks)
    matrices = rng.standard_normal((5, num_tasks, 8))
    losses = rng.uniform(0.1, 3, (5, num_tasks))
    for gamma in (0.05, 1.0):
        numbers = {"beta": 0.8, "beta_sigma": 0.5, "gamma": gamma, "gamma_sigma": 0.25}
        tx = mtl.moco(num_tasks, rho=0.3, projection=projection, **numbers)
        updates, state = steps(tx, matrices, {"losses": jnp.asarray(losses)})
        tracks = np.zeros(matrices.shape[1:])
        weights = np.full(num_tasks, 1 / num_tasks)
        for n, (matrix, loss, update) in enumerate(
            zip(seen(matrices), seen(losses), updates, strict=True), start=1
        ):
            if projection == "softmax":
                matrix = (loss / lengths(matrix))[:, None] * matrix
            tracks = tracks + 0.8 / n**0.5 * (matrix - tracks)
            slope = tracks @ (tracks.T @ weights) + 0.3 * weights
            point = weights - gamma / n**0.25 * slope
            if projection == "simplex":
                weights = nearest_on_simplex(point)
            else:
                weights = np.exp(point) / np.exp(point).sum()
            assert_same(update, weights @ tracks, 1e-5)
        np.testing.assert_allclose(state.task_weights, weights, rtol=1e-5, atol=1e-6)


def test_moco_starts_anew_where_the_absent_hold_all_the_weight():
    tx = mtl.moco(2, beta=1.0, gamma=10.0, rho=0.0)
    matrix = np.array([[1.0, 0], [0, 3]])
    active = jnp.array([[True, True], [False, True], [True, True]])
    updates, _ = steps(tx, np.stack([matrix] * 3), {"active": active})
    np.testing.assert_allclose(updates, [[1, 0], [0, 3], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("normalize", ["sum", "simplex"])
def test_excess_mtl_keeps_the_weights_where_all_ratios_are_equal(normalize):
    """Risks (3, 1/2), and of gradients half as long 0.2236 of both."""
    matrix = np.array([[1.0, 2.0], [0.5, 0.0]])
    tx = mtl.excess_mtl(2, step_size=0.5, warmup=1, normalize=normalize)
    _, state = steps(tx, np.stack([matrix]), {})
    np.testing.assert_allclose(state.risks, [3, 0.5], rtol=1e-6)
    updates, state = steps(tx, np.stack([matrix, matrix / 2]), {})
    share = 1.0 if normalize == "sum" else 0.5
    np.testing.assert_allclose(state.task_weights, [share, share], rtol=1e-5)
    assert_same(updates[1], share * matrix.sum(axis=0) / 2, 1e-5)


def test_excess_mtl_follows_its_ratios():
    """Against its recursion in float64, at scales 1e-3 to 1e3, weights included."""
    rng = np.random.default_rng(0)
    scale = np.array([1e-3, 1, 1e3])[:, None]
    matrices = rng.standard_normal((6, 3, 8)) * scale
    updates, state = steps(mtl.excess_mtl(3, step_size=0.5, warmup=2), matrices, {})
    squares, weights, risks = np.zeros((3, 8)), np.ones(3), []
    for n, (matrix, update) in enumerate(zip(seen(matrices), updates, strict=True)):
        squares += matrix**2
        risks.append(np.sum(matrix**2 / np.sqrt(squares + 1e-7), axis=1))
        if n >= 2:
            weights = weights * np.exp(0.5 * risks[-1] / np.mean(risks[:2], axis=0))
            weights *= 3 / weights.sum()
        assert_same(update, weights @ matrix, 1e-5)
    np.testing.assert_allclose(state.task_weights, weights, rtol=1e-5)


def test_excess_mtl_waits_for_a_gradient():
    """The authors' code is NaN from the second step on."""
    rows = np.array([[[1.0, 0], [0, 0]], [[0.5, 0], [0, 2]], [[0.5, 0], [0, 2]]])
    _, state = steps(mtl.excess_mtl(2), rows, {})
    assert np.all(np.isfinite(state.task_weights))
    np.testing.assert_array_equal(state.calls, [1, 1])
    np.testing.assert_allclose(state.risks, [1, 2], rtol=1e-6)


# From the Gramian or from two batches, with weights that are learned.


def sorted_onto_simplex(point):
    """By sorting, in float64."""
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(point) + 1)
    return np.maximum(point - excess[falling > excess][-1], 0)


def after_another_step(name, products, **hyper):
    """Weights of two updates that see these products of two batches."""
    num_tasks = products.shape[-1]
    tx = BY_NAME[name].make(num_tasks, **hyper)
    stacked = tree_of(random_matrix(num_tasks))
    state, seen_weights = tx.init(params_of(stacked)), []
    for cross in products:
        cross = jnp.asarray(cross, jnp.float32)
        _, state = tx.update(stacked, state, cross_gramian=cross)
        seen_weights.append(np.asarray(state.task_weights, np.float64))
    return seen_weights


def products_of_two_batches(num_tasks, seed):
    batches = [random_matrix(num_tasks, seed=4 * seed + i) for i in range(4)]
    products = np.stack([batches[0] @ batches[1].T, batches[2] @ batches[3].T])
    return products.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_modo_steps_along_the_product_of_two_batches(num_tasks):
    gamma, rho = 0.02, 0.3
    for seed in range(3):
        products, wanted = products_of_two_batches(num_tasks, seed), 1 / num_tasks
        for got, cross in zip(
            after_another_step("modo", products, gamma=gamma, rho=rho),
            products,
            strict=True,
        ):
            wanted = np.broadcast_to(wanted, num_tasks)
            wanted = sorted_onto_simplex(
                wanted - gamma * (cross @ wanted + rho * wanted)
            )
            np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_sdmgrad_steps_along_the_product_of_two_batches(num_tasks):
    """Two steps a call, so that momentum counts; it starts anew at the next call."""
    rate, momentum, lam = 0.1, 0.5, 0.6
    hyper = {"learning_rate": rate, "momentum": momentum, "lam": lam, "num_iters": 2}
    pull = lam / num_tasks
    for seed in range(3):
        products = products_of_two_batches(num_tasks, seed)
        wanted = np.full(num_tasks, 1 / num_tasks)
        for got, cross in zip(
            after_another_step("sdmgrad", products, **hyper), products, strict=True
        ):
            norms = np.sqrt(np.maximum(np.diag(cross), 0))
            cross = cross / np.mean(norms) ** 2 if norms.any() else cross
            first = cross @ (wanted + pull)
            wanted = sorted_onto_simplex(wanted - rate * first)
            second = momentum * first + cross @ (wanted + pull)
            wanted = sorted_onto_simplex(wanted - rate * second)
            mixed = (wanted + pull) / (1 + lam)
            np.testing.assert_allclose(got, mixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_sdmgrad_reaches_the_regularised_smallest_norm(num_tasks):
    """From call to call: in the end only tasks of the least slope have a weight."""
    lam = 0.3
    matrix = seen(random_matrix(num_tasks, width=columns(num_tasks), seed=2))
    gram = np.repeat((matrix @ matrix.T)[None], 60, axis=0)
    mixed = after_another_step("sdmgrad", gram, lam=lam, learning_rate=0.2)[-1]
    simplex = (1 + lam) * mixed - lam / num_tasks
    slopes = matrix @ (mixed @ matrix)
    assert np.all(simplex * (slopes - slopes.min()) <= 1e-4 * np.mean(slopes))


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
@pytest.mark.parametrize("lazy", [False, True])
def test_products_of_two_batches_stand_in_for_the_gramian(name, lazy):
    """None is formed; NaN of a missing task does no harm; the record is symmetric."""
    matrix, active = random_matrix(3, seed=1), np.array([True, False, True])
    (cross, _), tx = products_of_two_batches(3, 0), BY_NAME[name].make(3)
    stacked = tree_of(matrix, width=WIDTH)
    params = params_of(stacked)

    def step(given, active):
        gradients = stacked
        if lazy:
            lines = jax.tree.leaves(stacked)

            def losses(params):
                leaves = jax.tree.leaves(params)
                pairs = list(zip(lines, leaves, strict=True))
                return tuple(sum(jnp.sum(g[t] * p) for g, p in pairs) for t in range(3))

            gradients = mtl.lazy_task_grads(losses)(params)[1]
        return tx.update(
            gradients, tx.init(params), params, cross_gramian=given, active=active
        )

    broken = jnp.asarray(np.where(active[:, None] & active[None, :], cross, np.nan))
    update, state = jax.jit(step)(broken, jnp.asarray(active))
    alone = after_another_step(name, cross[None][:, active][:, :, active])[0]
    np.testing.assert_allclose(state.task_weights[active], alone, rtol=1e-5)
    assert_same(flat(update), alone @ seen(matrix)[active], 1e-5)
    record = np.where(np.outer(active, active), (cross + cross.T) / 2, 0)
    np.testing.assert_allclose(state.task_gramian, record, rtol=1e-6)
    text = jax.jit(step).lower(broken, None).as_text()
    assert "tensor<3x3xf32>, tensor<3xf32>" in text
    assert not re.search(r"dot_general.*-> tensor<3x3xf32>", text)


def nearest_to_the_first(matrix, tau):
    """Direction of PCD from scaled rows, by quadprog in float64; None: infeasible."""
    bounds = tau * np.sum(matrix[1:] ** 2, axis=1)
    identity = np.eye(matrix.shape[1])
    try:
        best = quadprog.solve_qp(identity, matrix[0], matrix[1:].T, bounds)[0]
    except ValueError:
        return None
    return best / np.linalg.norm(best)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("tau", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("spread", [0, 6])
def test_pcd_is_nearest_to_the_first_gradient(num_tasks, tau, spread):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix[0] -= 0.5 * matrix[1:].sum(axis=0)
        scales = np.logspace(-spread, spread, num_tasks)
        matrix *= np.random.default_rng(seed).permutation(scales)[:, None]
        given = seen(matrix)
        wanted = nearest_to_the_first(given / lengths(given)[:, None], tau)
        update = direction("pcd", matrix, tau=tau)
        assert_same(update / lengths(given)[0], wanted, 1e-4)


def test_pcd_divides_by_the_running_mean_of_squared_norms():
    """In the second step; no mean of a task moves while it is away."""
    tx = mtl.pcd(3, tau=[0.1, 0.4], beta=0.7)
    first, second = (random_matrix(3, seed=s) for s in (1, 2))
    params = params_of(tree_of(first))
    _, state = tx.update(
        tree_of(first), tx.init(params), active=jnp.array([True, False, True])
    )
    update, _ = tx.update(tree_of(second), state)
    squares = np.stack([lengths(first) ** 2, lengths(second) ** 2])
    means = (np.array([0.7 * 0.3, 0.3]) @ squares) / (1 - 0.7**2)
    means[1] = squares[1, 1]
    scaled = second / np.sqrt(means)[:, None]
    wanted = lengths(second)[0] * nearest_to_the_first(scaled, np.array([0.1, 0.4]))
    assert_same(flat(update), wanted, 1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("ratio", [1.0, 1e6])
def test_pcd_returns_the_first_gradient_where_no_vector_serves_the_others(
    num_tasks, ratio
):
    width = columns(num_tasks)
    for seed in range(5):
        others = stationary(max(num_tasks - 1, 2), width, seed)
        others *= np.logspace(0, np.log10(ratio), len(others))[:, None]
        matrix = np.concatenate([random_matrix(1, width, seed=100 + seed), others])
        update = direction("pcd", matrix, tau=0.02)
        assert_same(update, seen(matrix)[0], 1e-6)


def test_pcd_without_its_first_task_follows_the_next():
    matrix, there = random_matrix(4, seed=3), np.array([False, False, True, True])
    extras = {"active": jnp.asarray(there)}
    update, _ = run(BY_NAME["pcd"], matrix, extras)
    assert_same(update, direction("pcd", matrix[there]), 1e-6)


def test_pcd_with_a_zero_first_gradient_waits():
    matrix = random_matrix(3)
    matrix[0] = 0
    update, state = run(BY_NAME["pcd"], matrix)
    np.testing.assert_array_equal(update, 0)
    squares = state.weighting.mean_square
    np.testing.assert_allclose(squares, lengths(matrix) ** 2, rtol=1e-5)


@pytest.mark.parametrize("tau", [1e-4, 0.02, 0.5])
def test_pcd_of_opposite_gradients_turns_round_or_stops(tau):
    """What is left of the first gradient is tau of it, the other way."""
    row = random_matrix(1)[0]
    update = direction("pcd", np.stack([row, -3 * row]), tau=tau)
    if tau < 1e-3:
        np.testing.assert_array_equal(update, 0)
    else:
        assert_same(update, -row, 1e-3)


def test_pcd_with_a_tau_for_other_tasks():
    with pytest.raises(ValueError, match=r"shape \(3,\), or \(2,\) without the first"):
        mtl.pcd(3, tau=[0.1, 0.2, 0.3, 0.4])


def gradnorm_loss(scaled, rates, norms):
    """Its loss of the weights, from the paper: the target is a constant."""
    weighted = scaled * norms
    target = jax.lax.stop_gradient(jnp.mean(weighted) * rates)
    return jnp.sum(jnp.abs(weighted - target))


SCALED = {
    "paper": lambda values: values * len(values) / jnp.sum(values),
    "softmax": lambda values: len(values) * jax.nn.softmax(values),
}


@pytest.mark.parametrize("variant", SCALED)
@pytest.mark.parametrize("num_tasks", SIZES)
def test_gradnorm_descends_its_loss(variant, num_tasks):
    """Three steps, by jax.grad of the loss; the paper scales w outside of it."""
    rate, alpha, rng = 0.01, 0.7, np.random.default_rng(num_tasks)
    tx = mtl.gradnorm(
        num_tasks, alpha=alpha, variant=variant, optimizer=optax.sgd(rate)
    )
    losses = jnp.asarray(rng.uniform(0.5, 2.0, (3, num_tasks)), jnp.float32)
    values = jnp.ones(num_tasks)
    state = tx.init(params_of(tree_of(random_matrix(num_tasks))))
    for step in range(3):
        matrix = random_matrix(num_tasks, seed=step)
        update, state = tx.update(tree_of(matrix), state, losses=losses[step])
        wanted = SCALED[variant](values)
        np.testing.assert_allclose(state.task_weights, wanted, rtol=2e-5)
        assert_same(flat(update), np.asarray(wanted) @ matrix, 1e-5)
        ratios = losses[step] / losses[0]
        rates = (ratios / jnp.mean(ratios)) ** alpha
        norms = jnp.asarray(lengths(matrix), jnp.float32)
        if variant == "paper":
            slope = jax.grad(gradnorm_loss)(wanted, rates, norms)
            values = wanted - rate * slope
        else:
            slope = jax.grad(
                lambda s, *rest: gradnorm_loss(SCALED["softmax"](s), *rest)
            )
            values = values - rate * slope(values, rates, norms)


@pytest.mark.parametrize("variant", SCALED)
def test_gradnorm_evens_out_weighted_norms(variant):
    """With alpha=0, whatever the losses, in steps that shrink."""
    matrix = random_matrix(3) * np.array([[0.3], [1.0], [2.0]])
    shrinking = optax.sgd(optax.exponential_decay(0.1, 1, 0.98))
    tx = mtl.gradnorm(3, alpha=0.0, variant=variant, optimizer=shrinking)
    stacked = tree_of(matrix)

    def step(state, losses):
        _, state = tx.update(stacked, state, losses=losses)
        return state, state.task_weights

    losses = jnp.asarray(1.5 ** random_matrix(400, 3), jnp.float32)
    _, steps = jax.lax.scan(step, tx.init(params_of(stacked)), losses)
    weighted = np.asarray(steps[-1]) * lengths(matrix)
    np.testing.assert_allclose(weighted, weighted.mean(), rtol=1e-2)
    np.testing.assert_allclose(np.sum(steps[-1]), 3, rtol=1e-5)


def test_gradnorm_takes_the_first_loss_of_each_task():
    """A task that comes later brings its own; losses have a floor."""
    tx = mtl.gradnorm(3)
    stacked = tree_of(random_matrix(3))
    state = tx.init(params_of(stacked))
    for losses, active in (
        ((2.0, np.nan, -1.0), (True, False, True)),
        ((1.0, 5.0, 3.0), (True, True, True)),
    ):
        _, state = tx.update(
            stacked, state, losses=jnp.array(losses), active=jnp.array(active)
        )
    np.testing.assert_allclose(state.weighting.initial_losses, [2, 5, 1e-8])
    chex.assert_tree_all_finite(state)


def test_gradnorm_keeps_weights_positive_where_steps_are_too_long():
    tx = mtl.gradnorm(2)
    stacked = tree_of(random_matrix(2) * np.array([[1.0], [1e4]]))
    state = tx.init(params_of(stacked))
    for _ in range(4):
        _, state = tx.update(stacked, state, losses=jnp.ones(2))
        assert np.all(state.task_weights > 0)
        np.testing.assert_allclose(np.sum(state.task_weights), 2, rtol=1e-6)


# From the Gramian: each method against its equations.


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 10.0])
def test_fairgrad_solves_its_equation(num_tasks, alpha):
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix *= np.logspace(-1, 1, num_tasks)[:, None]
        update = direction("fairgrad", matrix, alpha=alpha)
        shares = weights("fairgrad", matrix, alpha=alpha)
        assert np.all(shares > 0)
        gains = seen(matrix) @ update
        np.testing.assert_allclose(shares ** (1 / alpha) * gains, 1, rtol=1e-4)


def test_fairgrad_is_nash_mtl_for_alpha_1():
    for matrix in hostile(3).values():
        update = direction("fairgrad", matrix, alpha=1.0)
        assert_same(update, direction("nash_mtl", matrix), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [2, 3, 10])
def test_fairgrad_goes_from_the_projected_sum_to_mgda(num_tasks, x64):
    for seed in range(3):
        matrix = random_matrix(num_tasks, seed=100 * seed + num_tasks)
        near_sum = direction("fairgrad", matrix, "float64", alpha=1e-2)
        assert_same(near_sum, on_dual_cone(matrix, matrix.sum(axis=0)), 0.05)
        near_shortest = direction("fairgrad", matrix, "float64", alpha=300.0)
        shortest = direction("mgda", matrix, "float64")
        assert_same(near_shortest, shortest / (shortest @ shortest), 0.02)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("spread", [0, 2])
def test_dualproj_projects_the_mean_on_the_dual_cone(num_tasks, spread):
    for seed in range(3):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix *= np.logspace(-spread, spread, num_tasks)[:, None]
        given = seen(matrix)
        wanted = on_dual_cone(given, given.mean(axis=0))
        assert_same(direction("dualproj", matrix), wanted, 1e-4)


@pytest.mark.parametrize("ratio", RATIOS)
def test_dualproj_lets_a_task_against_the_mean_gain_nothing(ratio):
    """The projection of the longer gradient off the shorter one, halved, for two."""
    first, longer = pair(-0.8, max(ratio, 10), seed=3)
    update = direction("dualproj", np.stack([first, longer]))
    wanted = (longer - longer @ first / (first @ first) * first) / 2
    assert_same(update, wanted, 1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("preferred", [False, True])
def test_conflictfree_has_cosines_in_proportion_to_the_preference(num_tasks, preferred):
    hyper, preference = {}, np.ones(num_tasks)
    if preferred:
        preference = np.linspace(1, 3, num_tasks).astype("float32")
        hyper = {"preference": preference}
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix *= np.logspace(-6, 6, num_tasks)[:, None]
        update = direction("conflictfree", matrix, **hyper)
        cosines = cosines_with(seen(matrix), update) / preference
        assert np.all(cosines > 0)
        np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-4)
        projections = seen(matrix) @ update / np.linalg.norm(update)
        np.testing.assert_allclose(np.linalg.norm(update), projections.sum(), rtol=1e-4)


def test_conflictfree_of_three_directions_in_a_plane_is_zero_if_they_surround_0():
    """Else the least-squares direction: no vector has equal cosines."""
    for degrees, exists in [((0, 100, 200), False), ((0, 30, 90), True)]:
        angles = np.deg2rad(degrees)
        matrix = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        update = direction("conflictfree", matrix)
        axis = np.linalg.pinv(matrix).sum(axis=1)
        axis /= np.linalg.norm(axis)
        assert_same(update, exists * (matrix @ axis).sum() * axis, 1e-5)


@functools.cache
def vaccinated(num_tasks, beta):
    """One update of gradvac from given targets."""

    def step(stacked, phi, order):
        tx = mtl.gradvac(num_tasks, key=0, beta=beta, eps=0.0)
        state = tx.init(params_of(stacked))
        state = state._replace(weighting=state.weighting._replace(phi=phi))
        return tx.update(stacked, state, order=order)

    return jax.jit(step)


def vaccinate(matrix, phi, order, beta=0.5):
    """Direction [P] and new targets [T, T], both float64."""
    num_tasks, width = matrix.shape
    stacked = tree_of(matrix, width=columns(num_tasks))
    given = jnp.asarray(phi, jnp.float32), jnp.asarray(order, jnp.int32)
    update, state = vaccinated(num_tasks, beta)(stacked, *given)
    return flat(update, width), np.asarray(state.weighting.phi, np.float64)


def turned(matrix, phi, order, beta=0.5):
    """GradVac's equations on gradients, in float64."""
    phi, total = phi.copy(), np.zeros(matrix.shape[1])
    for i, changed in enumerate(matrix):
        for j in order[i]:
            other, target = matrix[j], phi[i, j]
            size = np.linalg.norm(changed)
            cosine = changed @ other / size / np.linalg.norm(other)
            if cosine < target:
                room, aim = np.sqrt(1 - cosine**2), np.sqrt(1 - target**2)
                part = (target * room - cosine * aim) / aim
                changed = changed + size * part / np.linalg.norm(other) * other
            phi[i, j] = (1 - beta) * target + beta * cosine
        total += changed
    return total, phi


@pytest.mark.parametrize("num_tasks", SIZES)
def test_gradvac_turns_gradients_as_its_equations_say(num_tasks):
    rng = np.random.default_rng(num_tasks)
    for seed in range(5):
        matrix = random_matrix(num_tasks, width=columns(num_tasks), seed=seed)
        matrix *= np.logspace(-3, 3, num_tasks)[:, None]
        phi = rng.uniform(-0.6, 0.6, (num_tasks, num_tasks)).astype("float32")
        order = BY_NAME["gradvac"].extras(num_tasks, None, seed)["order"]
        update, targets = vaccinate(matrix, phi, order)
        wanted, moved = turned(seen(matrix), phi.astype("float64"), np.asarray(order))
        assert_same(update, wanted, 1e-5 * num_tasks)
        np.testing.assert_allclose(targets, moved, rtol=0, atol=1e-5 * num_tasks)


@pytest.mark.parametrize("num_tasks", [1, *SIZES])
def test_gradvac_without_targets_is_pcgrad(num_tasks):
    for name, matrix in hostile(num_tasks).items():
        extras = BY_NAME["pcgrad"].extras(num_tasks, None)
        wanted, _ = run(BY_NAME["pcgrad"], matrix, extras)
        update, state = run(BY_NAME["gradvac"], matrix, extras, beta=0.0)
        np.testing.assert_array_equal(state.weighting.phi, 0, err_msg=name)
        bound = 1e-5 * lengths(seen(matrix)).max()
        np.testing.assert_allclose(update, wanted, rtol=0, atol=bound, err_msg=name)


def test_gradvac_turns_to_the_target():
    """Orthogonal gradients and a target of 1/2; the other task is content."""
    phi = np.array([[0, 0.5], [-0.5, 0]])
    update, targets = vaccinate(np.eye(2), phi, [[1], [0]])
    np.testing.assert_allclose(update, [1, 1 + 0.577350], rtol=1e-5)
    np.testing.assert_allclose(targets, [[0, 0.25], [-0.25, 0]], atol=1e-6)


@pytest.mark.parametrize("target", [1.0, -1.0, 0.999999])
def test_gradvac_with_extreme_targets_is_finite(target):
    order = BY_NAME["gradvac"].extras(3, None)["order"]
    for name, matrix in hostile(3).items():
        update, targets = vaccinate(matrix, np.full((3, 3), target), order)
        assert np.all(np.isfinite(update)), name
        assert np.all(np.abs(targets) <= 1), name
        most = 3 * 1e7 * lengths(seen(matrix)).max()
        assert np.all(np.abs(update) <= most), name


@pytest.mark.parametrize("target", [-1.0, -0.5, 0.5])
def test_gradvac_of_opposite_gradients_is_exactly_zero_for_any_target(target):
    row = random_matrix(1)[0]
    phi, order = np.full((2, 2), target), [[1], [0]]
    update, _ = vaccinate(np.stack([row, -3 * row]), phi, order)
    np.testing.assert_array_equal(update, 0)


def test_gradvac_leaves_the_targets_of_a_zero_gradient():
    matrix, phi = random_matrix(3, seed=1), np.full((3, 3), 0.25)
    matrix[1] = 0
    order = [[1, 2], [0, 2], [0, 1]]
    update, targets = vaccinate(matrix, phi, order)
    pair_alone, moved = vaccinate(matrix[[0, 2]], phi[:2, :2], [[1], [0]])
    assert_same(update, pair_alone, 1e-6)
    np.testing.assert_allclose(targets[np.ix_([0, 2], [0, 2])], moved, atol=1e-6)
    np.testing.assert_array_equal(targets[1], 0.25)
    np.testing.assert_array_equal(targets[:, 1], 0.25)


def test_gradvac_per_leaf_is_gradvac_on_each_leaf():
    stacked = tree_of(random_matrix(3, seed=8))
    params, order = params_of(stacked), BY_NAME["gradvac"].extras(3, None)["order"]
    tx = mtl.gradvac(3, key=0, granularity="leaf")
    state = tx.init(params)
    assert state.weighting.phi.shape == (3, 3, 3)
    alone, whole = {}, mtl.gradvac(3, key=0)
    states = {name: whole.init(leaf) for name, leaf in params.items()}
    for _ in range(2):
        update, state = tx.update(stacked, state, params, order=order)
        for name, leaf in stacked.items():
            alone[name], states[name] = whole.update(leaf, states[name], order=order)
    np.testing.assert_allclose(flat(update), flat(alone), rtol=1e-5, atol=1e-6)
    for phi, name in zip(state.weighting.phi, stacked, strict=True):
        np.testing.assert_allclose(phi, states[name].weighting.phi, atol=1e-6)


def krum_weights(matrix, num_byzantine, num_selected=1, active=None):
    """The definition, loop by loop, in float64."""
    present = np.arange(len(matrix)) if active is None else np.flatnonzero(active)
    neighbours = max(len(present) - num_byzantine - 2, 1)
    scores = []
    for i in present:
        apart = [np.sum((matrix[i] - matrix[j]) ** 2) for j in present if j != i]
        scores.append(np.sum(np.sort(apart)[:neighbours]))
    best = present[np.argsort(scores, kind="stable")[:num_selected]]
    chosen = np.zeros(len(matrix))
    chosen[best] = 1 / max(len(best), 1)
    return chosen


def krum_chooses(matrix, active=None, **options):
    """Weights [T] of krum."""
    stacked, tx = tree_of(matrix), mtl.krum(len(matrix), **options)
    _, state = tx.update(stacked, tx.init(params_of(stacked)), active=active)
    return np.asarray(mtl.task_weights(state), np.float64)


@pytest.mark.parametrize("num_tasks", [3, 6, 10, 50])
def test_krum_is_the_mean_of_the_lowest_scores(num_tasks):
    for num_byzantine in {0, 1, num_tasks // 2 - 1} & set(range(num_tasks - 2)):
        # Of three tasks the nearest two tie exactly, but not in rounding.
        for num_selected in {2, 3} if num_tasks == 3 else {1, 3}:
            options = {"num_byzantine": num_byzantine, "num_selected": num_selected}
            matrix = random_matrix(num_tasks, seed=num_tasks + num_byzantine)
            wanted = krum_weights(seen(matrix), **options)
            np.testing.assert_allclose(krum_chooses(matrix, **options), wanted)


def test_krum_outvotes_one_that_stands_apart_and_ties_go_to_the_first():
    matrix = np.array([[0, 0], [0.5, 0], [0, 0.5], [5, 5]])
    for k in range(4):
        rolled = np.roll(matrix, k, axis=0)
        wanted = [0, 0, 0, 0]
        wanted[0 if k != 1 else 1] = 1
        np.testing.assert_array_equal(krum_chooses(rolled, num_byzantine=1), wanted)


@pytest.mark.parametrize("missing", [1, 3, 4, 5, 6])
def test_krum_of_the_active_tasks_has_at_least_one_neighbour(missing):
    matrix = random_matrix(6, seed=2)
    active = np.arange(6) >= missing
    options = {"num_byzantine": 2, "num_selected": 2}
    got = krum_chooses(matrix, jnp.asarray(active), **options)
    np.testing.assert_allclose(
        got, krum_weights(seen(matrix), **options, active=active)
    )


# --- Random trees ---------------------------------------------------------------------

RANDOM = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# One shape, as each compiles anew; values and scales vary freely.
SCALES = st.floats(-6, 6)


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
@EACH
@given(seed=st.integers(0, 2**32 - 1), exponents=st.tuples(SCALES, SCALES, SCALES))
@RANDOM
def test_random_trees(method, dtype, seed, exponents):
    """Finite, of the parameters' dtype, and blind to the order of the tasks."""
    matrix = random_matrix(3, seed=seed) * 10.0 ** np.array(exponents)[:, None]
    stacked = tree_of(matrix, dtype, WIDTH)
    params = params_of(stacked)
    step = compiled(method, 3)
    update, state = step(stacked, (), method.extras(3, params))
    assert jax.tree.map(jnp.shape, update) == jax.tree.map(jnp.shape, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(update)} == {jnp.dtype(dtype)}
    assert np.all(np.isfinite(flat(update)))
    if "simplex" in method.claims:
        np.testing.assert_allclose(np.sum(state.task_weights), 1, rtol=1e-6)
    if "non_conflicting" in method.claims and dtype == "float32":
        assert np.min(cosines_with(seen(matrix), flat(update))) >= -1e-5


@st.composite
def layouts(draw):
    """Sizes of the leaves that 12 columns are cut into."""
    cuts = draw(st.sets(st.integers(1, WIDTH - 1), max_size=3))
    return np.diff([0, *sorted(cuts), WIDTH]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unitary", "imtl_g", "aligned_mtl"])
@given(sizes=layouts(), num_tasks=st.integers(1, 6), seed=st.integers(0, 99))
@settings(RANDOM, max_examples=10)
def test_layout_of_the_tree_does_not_matter(name, sizes, num_tasks, seed):
    matrix = random_matrix(num_tasks, seed=seed)
    ends = np.cumsum(sizes)[:-1]
    leaves = [jnp.asarray(x, jnp.float32) for x in np.split(matrix, ends, axis=1)]
    tx = BY_NAME[name].make(num_tasks)
    params = params_of(leaves)
    update, _ = tx.update(leaves, tx.init(params), params)
    assert_same(np.concatenate(update), direction(name, matrix), 1e-4)


# --- float64 --------------------------------------------------------------------------


@EACH
@pytest.mark.slow
def test_float32_agrees_with_float64(method):
    matrix = seen(random_matrix(3, seed=11))
    with precision("float64"):
        wanted, _ = run(method, matrix, dtype="float64")
    update, _ = run(method, matrix)
    assert_same(update, wanted, method.tolerance)
