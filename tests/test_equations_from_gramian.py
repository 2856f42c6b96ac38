"""Methods from the Gramian against the equations that define them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadprog
from method_runs import (
    SIZES,
    assert_same,
    columns,
    cosines_with,
    direction,
    lengths,
    run,
    seen,
    weights,
)
from methods import BY_NAME
from problems import flat, hostile, pair, params_of, random_matrix, tree_of

import mtl_optax as mtl

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
@pytest.mark.slow
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


@pytest.mark.optimized
@pytest.mark.slow
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


@pytest.mark.slow
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
@pytest.mark.slow
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
@pytest.mark.slow
def test_krum_of_the_active_tasks_has_at_least_one_neighbour(missing):
    matrix = random_matrix(6, seed=2)
    active = np.arange(6) >= missing
    options = {"num_byzantine": 2, "num_selected": 2}
    got = krum_chooses(matrix, jnp.asarray(active), **options)
    np.testing.assert_allclose(
        got, krum_weights(seen(matrix), **options, active=active)
    )


# --- options --------------------------------------------------------------------------


PARAMS, CONFLICT = {"w": jnp.zeros(2)}, np.array([[3.0, 0.0], [-1.0, 2.0]])


def of_matrix(tx, matrix=CONFLICT, **extras):
    grads = {"w": jnp.asarray(matrix, jnp.float32)}
    return np.asarray(tx.update(grads, tx.init(PARAMS), PARAMS, **extras)[0]["w"])


@pytest.mark.parametrize(
    ("length", "norm"),
    [
        ("min", 5**0.5),
        ("max", 3),
        ("mean", (3 + 5**0.5) / 2),
        ("harmonic", 2 / (1 / 3 + 5**-0.5)),
        ("geometric", (3 * 5**0.5) ** 0.5),
        (0, 3),
        (jnp.array(1), 5**0.5),
        ("b", 5**0.5),
    ],
)
def test_conflictfree_is_as_long_as_unit_gradients_times_a_norm(length, norm):
    """The sum of the projections of unit gradients, times the norm that is tracked."""
    losses = {"losses": {"a": 1.0, "b": 1.0}}
    got = of_matrix(mtl.conflictfree(2, length=length), **losses)
    usual = of_matrix(mtl.conflictfree(2))
    axis = usual / np.linalg.norm(usual)
    units = CONFLICT / np.linalg.norm(CONFLICT, axis=1)[:, None]
    np.testing.assert_allclose(got, norm * np.sum(units @ axis) * axis, rtol=2e-6)


@pytest.mark.parametrize("length", ["min", "mean", "harmonic", "geometric"])
def test_conflictfree_tracks_only_tasks_with_a_gradient(length):
    matrix = np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    got = of_matrix(mtl.conflictfree(3, length=length), matrix)
    alone = of_matrix(mtl.conflictfree(2, length=length), matrix[[0, 2]])
    np.testing.assert_allclose(got, alone, rtol=1e-6)
    np.testing.assert_array_equal(
        of_matrix(mtl.conflictfree(3, length=1), matrix), [0, 0]
    )


def test_conflictfree_says_what_a_length_may_be():
    for length, message in ((2, "length must be at most 1"), (0.5, "a Python int")):
        with pytest.raises(ValueError, match=message):
            mtl.conflictfree(2, length=length)
    with pytest.raises(ValueError, match="length must be one of 'projection', 'min'"):
        mtl.conflictfree(2, length=None)
    with pytest.raises(ValueError, match="length='avg' is none of 'projection', 'min'"):
        of_matrix(mtl.conflictfree(2, length="avg"))


def test_fairgrad_without_fairness_is_the_sum_whatever_alpha_is():
    wanted = CONFLICT.sum(axis=0)
    traced = jax.jit(lambda alpha: of_matrix_traced(mtl.fairgrad(2, alpha=alpha)))
    for got in (
        of_matrix(mtl.fairgrad(2, alpha=0)),
        of_matrix(mtl.fairgrad(2, alpha=0.0)),
        of_matrix(mtl.fairgrad(2, alpha=lambda count: 0.0 * count)),
        traced(0.0),
    ):
        np.testing.assert_array_equal(got, wanted)
    # 0 in the hull: no bargain, but a sum.
    opposite = np.array([[1.0, 0.0], [-3.0, 0.0]])
    np.testing.assert_array_equal(
        of_matrix(mtl.fairgrad(2, alpha=0), opposite), [-2, 0]
    )
    # Without a conflict it is the limit.
    near = of_matrix(mtl.fairgrad(2, alpha=1e-3), np.array([[1.0, 0.5], [0.5, 2.0]]))
    np.testing.assert_allclose(near, [1.5, 2.5], rtol=5e-3)


def of_matrix_traced(tx):
    grads = {"w": jnp.asarray(CONFLICT, jnp.float32)}
    return tx.update(grads, tx.init(PARAMS), PARAMS)[0]["w"]


def test_pcd_with_eps_divides_by_the_root_of_square_plus_eps():
    """Two orthogonal tasks: what the second asks for, by hand."""
    matrix = np.array([[3.0, 0.0], [0.0, 2.0]])
    for eps in (0.0, 1.0, 7.0):
        got = of_matrix(mtl.pcd(2, tau=0.5, eps=eps), matrix)
        one, two = 3 / (9 + eps) ** 0.5, 2 / (4 + eps) ** 0.5
        moved = np.array([one, 0.5 * two])  # <two, d> = tau two^2
        np.testing.assert_allclose(got, 3 * moved / np.linalg.norm(moved), rtol=1e-5)
    with pytest.raises(ValueError, match="eps must be at least 0"):
        mtl.pcd(2, eps=-1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "centre"),
    [
        ([[3, 0], [-1, 0.5]], [0.217376, 0.92082]),
        ([[3, 0], [-1, 1]], [0.646447, 1.56066]),
        ([[3, 4], [0, 1]], [1.8, 5.4]),
    ],
)
def test_dual_cone_gradient_descent_of_two_tasks_has_other_names(rows, centre):
    """DCGD's three forms, from their formulas: conflictfree, dualproj, pcgrad."""
    g = np.array(rows, float)
    total, units = g.sum(axis=0), g / lengths(g)[:, None]
    along = units.sum(axis=0) / np.linalg.norm(units.sum(axis=0))
    got = of_matrix(mtl.conflictfree(2), g)
    np.testing.assert_allclose(got, centre, rtol=1e-5)
    np.testing.assert_allclose(got, (total @ along) * along, rtol=1e-5)

    inner, projected = g @ total, total
    for row, product in zip(g, inner, strict=True):
        if product < 0:
            projected = total - product / (row @ row) * row
    got = of_matrix(mtl.dualproj(2, preference=jnp.ones(2)), g)
    np.testing.assert_allclose(got, projected, rtol=1e-5, atol=1e-6)

    if (inner < 0).any():  # outside the dual cone
        parts = [(1 - g[0] @ g[1] / (row @ row)) * row for row in g]
        got = of_matrix(mtl.pcgrad(2, key=0, reduction="mean"), g)
        np.testing.assert_allclose(got, sum(parts) / 2, rtol=1e-5, atol=1e-6)
