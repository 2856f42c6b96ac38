"""Methods from the gradients against their recursions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_runs import SIZES, WIDTH, assert_same, columns, lengths, run, seen
from methods import BY_NAME
from problems import flat, params_of, random_matrix, tree_of

import mtl_optax as mtl


@pytest.mark.parametrize("uniform", [0.2, 0.3])
def test_graddrop_keeps_one_sign(uniform):
    """Column (1, -3) has purity 1/4."""
    matrix = np.array([[1.0, 2.0], [-3.0, 1.0]])
    uniforms = tree_of(np.full(2, uniform), width=WIDTH)
    update, _ = run(BY_NAME["graddrop"], matrix, {"uniforms": uniforms})
    np.testing.assert_allclose(update, [1.0 if uniform < 0.25 else -3.0, 3.0])


def test_graddrop_draws_by_a_function_of_the_purity():
    """Columns of purity 1/4, 1 and 3/4, against f(P) = P^2 and rounding."""
    grads = jnp.array([[1.0, 2.0, 3.0], [-3.0, 1.0, -1.0]])
    for f, wanted in (
        (None, [-3, 3, 3]),
        (lambda purity: purity**2, [-3, 3, -1]),
        (jnp.round, [-3, 3, 3]),
    ):
        tx = mtl.graddrop(2, key=0, f=f)
        state = tx.init(jnp.zeros(3))
        got, _ = tx.update(grads, state, uniforms=jnp.full(3, 0.6))
        np.testing.assert_allclose(got, wanted)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (0.5, "f must be a function of the purity P"),
        (jnp.mean, r"f must keep the shape of P, \(2,\).*returned shape \(\)"),
    ],
)
def test_graddrop_refuses_what_is_no_function_of_the_purity(f, message):
    params, grads = {"w": jnp.zeros(2)}, {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=message):
        mtl.graddrop(2, key=0, f=f).update(grads, mtl.graddrop(2, key=0).init(params))


def test_graddrop_at_features_draws_by_the_same_function():
    """Purity 1/4 of the one feature, drawn at 0.1: its square is below."""
    uniforms = {"uniforms": jnp.full(1, 0.1)}
    ask = mtl.feature_task_grads(
        lambda w, x: x * w[None, :], lambda w, z, x: (jnp.mean(z), -3 * jnp.mean(z))
    )
    params, x = jnp.ones(1), jnp.ones((4, 1))
    for f, wanted in ((None, 1.0), (lambda purity: purity**2, -3.0)):
        tx = mtl.graddrop(2, key=0, f=f, at="features")
        _, grads = ask(params, x)
        got, _ = tx.update(grads, tx.init(params), params, **uniforms)
        np.testing.assert_allclose(got, [wanted])


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
@pytest.mark.slow
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


@pytest.mark.parametrize("f", [None, lambda purity: purity])
def test_graddrop_has_odds_where_sizes_add_up_to_more_than_the_largest_number(f):
    grads = jnp.broadcast_to(jnp.array([[3e38], [-1.5e38]]), (2, 3))
    tx = mtl.graddrop(2, key=0, f=f)
    draws = jnp.array([0.1, 0.6, 0.7])  # of a purity of 2/3
    update, _ = tx.update(grads, tx.init(jnp.zeros(3)), uniforms=draws)
    np.testing.assert_allclose(update, [3e38, 3e38, -1.5e38], rtol=1e-6)
