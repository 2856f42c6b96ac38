"""Selection of task groups: the official example, brute force, milp, ties, errors."""

import itertools

import numpy as np
import pytest
from scipy import optimize, sparse

import mtl_optax as mtl
from mtl_optax.analysis import group_search

# The specification's table: rows are recipients, so it is transposed below. Order:
# segmentation, depth, normals, keypoints, edges.
TASKONOMY = np.array(
    [
        [0.0, 0.1154, 0.0489, 0.0045, 0.0088],
        [0.4136, 0.0, 0.2914, 0.0135, 0.0740],
        [0.1398, 0.2210, 0.0, 0.0105, 0.0765],
        [0.0211, 0.0134, 0.0107, 0.0, 0.6897],
        [0.0567, 0.0367, 0.0360, 0.3037, 0.0],
    ]
).T
S, D, N, K, E = range(5)


@pytest.mark.parametrize(
    ("budget", "groups", "score"),
    [
        (1, ((S, D, N, K, E),), 0.12930),
        (2, ((S, D, N), (K, E)), 0.32169),
        (3, ((S, D), (D, N), (K, E)), 0.34868),
        (4, ((S, D), (D, N), (K, E)), 0.34868),
        (99, ((S, D), (D, N), (K, E)), 0.34868),
    ],
)
def test_the_official_groups(budget, groups, score):
    found, value = mtl.select_task_groups(TASKONOMY, budget)
    assert found == groups
    np.testing.assert_allclose(value, score, atol=5e-6)


def every_group(affinity):
    """Groups in the authors' order, and S(g, i) written out, -inf outside."""
    tasks = range(len(affinity))
    sizes = range(2, len(affinity) + 1)
    groups = sorted(g for n in sizes for g in itertools.combinations(tasks, n))
    scores = np.full((len(groups), len(affinity)), -np.inf)
    for row, group in zip(scores, groups, strict=True):
        for i in group:
            row[i] = np.mean([affinity[j, i] for j in group if j != i])
    return groups, scores


def brute_force(affinity, budget):
    """The best, the fewest of the best, the first of the fewest."""
    groups, scores = every_group(affinity)
    best, best_value = None, -np.inf
    for number in range(1, budget + 1):
        for chosen in itertools.combinations(range(len(groups)), number):
            value = scores[list(chosen)].max(axis=0).mean()
            if value > best_value + 1e-9:
                best, best_value = tuple(groups[g] for g in chosen), value
    return best, best_value


MATRICES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "of few values": lambda rng, shape: rng.integers(-1, 2, size=shape) * 0.3,
    "of zeros and ones": lambda rng, shape: rng.integers(0, 2, size=shape),
    "of one value": lambda rng, shape: np.full(shape, rng.integers(-1, 2)),
}
SIZES = [(t, b) for t in (3, 4, 5) for b in (1, 2, 3)] + [(6, 1), (6, 2)]


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.slow
def test_agrees_with_brute_force(kind):
    """On 50 matrices of each kind, ties included."""
    rng = np.random.default_rng(7)
    for case in range(50):
        num_tasks, budget = SIZES[case % len(SIZES)]
        affinity = MATRICES[kind](rng, (num_tasks, num_tasks))
        groups, score = mtl.select_task_groups(affinity, budget)
        wanted, value = brute_force(np.asarray(affinity, float), budget)
        np.testing.assert_allclose(score, value, atol=1e-9)
        assert groups == wanted


@pytest.mark.parametrize("seed", range(3))
def test_six_tasks_in_three_groups_agree_with_brute_force(seed):
    affinity = np.random.default_rng(seed).standard_normal((6, 6))
    assert mtl.select_task_groups(affinity, 3)[0] == brute_force(affinity, 3)[0]


@pytest.mark.parametrize("kind", ["normal", "of zeros and ones"])
def test_twelve_tasks_in_two_groups_against_all_pairs_of_groups(kind):
    affinity = MATRICES[kind](np.random.default_rng(1), (12, 12)).astype(float)
    _, scores = every_group(affinity)
    best = max(np.maximum(scores, row).mean(axis=1).max() for row in scores)
    np.testing.assert_allclose(mtl.select_task_groups(affinity, 2)[1], best, atol=1e-12)


@pytest.mark.parametrize(("num_tasks", "budget"), [(8, 3), (9, 4)])
def test_agrees_with_integer_programming(num_tasks, budget):
    affinity = np.random.default_rng(3).standard_normal((num_tasks, num_tasks))
    _, scores = every_group(affinity)
    pairs = np.argwhere(np.isfinite(scores))  # y of group g serving task i; x of g open
    rows, (open_, tasks) = np.arange(len(pairs)), pairs.T
    one = np.ones(len(pairs))
    serve_once = sparse.csr_array((one, (tasks, rows)), (num_tasks, len(pairs)))
    serve_if_open = sparse.csr_array((-one, (rows, open_)), (len(pairs), len(scores)))
    nothing = sparse.csr_array((num_tasks, len(scores)))
    found = optimize.milp(
        np.concatenate([np.zeros(len(scores)), -scores[open_, tasks] / num_tasks]),
        integrality=np.repeat([1, 0], [len(scores), len(pairs)]),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            (sparse.hstack([nothing, serve_once]), 1, 1),
            (sparse.hstack([serve_if_open, sparse.eye_array(len(pairs))]), -np.inf, 0),
            (np.repeat([1, 0], [len(scores), len(pairs)])[None, :], 0, budget),
        ],
    )
    score = mtl.select_task_groups(affinity, budget)[1]
    np.testing.assert_allclose(score, -found.fun, atol=1e-5)


@pytest.mark.parametrize("budget", [3, 6, 12])
@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.slow
def test_any_budget_for_twelve_tasks(kind, budget):
    affinity = MATRICES[kind](np.random.default_rng(5), (12, 12))
    groups, score = mtl.select_task_groups(affinity, budget)
    assert len(groups) <= budget
    assert set().union(*groups) == set(range(12))
    assert score <= np.where(np.eye(12), -np.inf, affinity).max(axis=0).mean() + 1e-12


def test_a_known_truth_for_more_tasks_than_are_enumerated():
    """Blocks of tasks that help one another, in a hidden order."""
    order = np.random.default_rng(0).permutation(20)
    block = np.arange(20) // 5
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (20, 20))
    affinity = np.empty((20, 20))
    affinity[np.ix_(order, order)] = (block[:, None] == block[None, :]) + noise
    _, score = mtl.select_task_groups(affinity, budget=4)
    planted = tuple(tuple(sorted(order[block == b].tolist())) for b in range(4))
    homes = mtl.served_by(affinity, planted)
    ours = [affinity[[j for j in planted[h] if j != i], i] for i, h in enumerate(homes)]
    assert score >= np.mean([x.mean() for x in ours]) - 1e-12
    exact_blocks = np.asarray(block[:, None] == block[None, :], float)
    groups, score = mtl.select_task_groups(exact_blocks, budget=4)
    assert score == 1.0
    assert all(len({block[t] for t in group}) == 1 for group in groups)


def test_local_search_is_near_the_optimum():
    rng = np.random.default_rng(11)
    for budget in (2, 3, 4):
        affinity = rng.standard_normal((10, 10))
        np.fill_diagonal(affinity, 0)
        best = mtl.select_task_groups(affinity, budget)[1]
        found = group_search.local_search(affinity, budget)
        assert best - group_search.total_score(affinity, found) / 10 < 0.05


def test_scale_and_diagonal_do_not_matter():
    affinity = np.random.default_rng(2).standard_normal((7, 7))
    groups, score = mtl.select_task_groups(affinity, 3)
    other = affinity * 1e-8
    np.fill_diagonal(other, 1e9)
    same, less = mtl.select_task_groups(other, 3)
    assert same == groups
    np.testing.assert_allclose(less, score * 1e-8)


def test_training_runs():
    groups = ((S, D), (D, N), (K, E), (S, K))
    assert mtl.served_by(TASKONOMY, groups) == (0, 0, 1, 2, 2)
    trained = []
    runs = mtl.train_groups(
        lambda tasks: trained.append(tasks) or len(trained), TASKONOMY, groups
    )
    assert trained == [(S, D), (D, N), (K, E)]
    assert [run.serves for run in runs] == [(S, D), (N,), (K, E), ()]
    assert [run.result for run in runs] == [1, 2, 3, None]


def test_a_task_alone_is_served_by_any_company_first():
    affinity = -np.ones((3, 3))
    assert mtl.served_by(affinity, ((0,), (0, 1), (2,))) == (1, 1, 2)


@pytest.mark.parametrize(
    ("affinity", "budget", "message"),
    [
        (np.zeros((2, 3)), 1, r"square matrix .* shape \(2, 3\)"),
        (np.zeros(4), 1, "square matrix"),
        (np.zeros((1, 1)), 1, "two tasks or more"),
        ([[0.0, np.nan], [0.0, 0.0]], 1, r"finite, but entries \[\[0, 1\]\]"),
        (np.zeros((2, 2)), 0, "budget must be at least 1"),
        (np.zeros((2, 2)), 1.5, "budget must be a Python int"),
    ],
)
def test_errors_of_selection(affinity, budget, message):
    with pytest.raises(ValueError, match=message):
        mtl.select_task_groups(affinity, budget)


def test_errors_of_groups():
    with pytest.raises(ValueError, match=r"\(0, 5\) names a task that is not there"):
        mtl.served_by(TASKONOMY, ((0, 5),))
    with pytest.raises(ValueError, match=r"Tasks \[3, 4\] are in no group"):
        mtl.train_groups(len, TASKONOMY, ((0, 1, 2),))
