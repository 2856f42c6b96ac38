"""The clusters are scikit-learn's, wherever those do not hang on its random numbers."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import AffinityPropagation
from sklearn.exceptions import ConvergenceWarning

from mtl_optax.core.solvers.affinity_propagation import affinity_propagation


def symmetric(rng, n):
    x = rng.random((n, n))
    return (x + x.T) / 2 + (1 - (x + x.T) / 2) * np.eye(n)


def blocks(rng, n):
    block = rng.integers(0, 3, n)
    noise = 0.15 * rng.standard_normal((n, n))
    x = (block[:, None] == block[None, :]) + noise + noise.T
    return x * (1 - np.eye(n)) + np.eye(n)


def asymmetric(rng, n):
    return rng.standard_normal((n, n))


def distances(rng, n):
    points = rng.standard_normal((n, 2))
    return -np.sum((points[:, None] - points[None, :]) ** 2, axis=-1)


KINDS = [symmetric, blocks, asymmetric, distances]


def clusters(labels):
    return {frozenset(np.flatnonzero(labels == k).tolist()) for k in set(labels)}


def reference(similarity, **options):
    """Its clusters, or None where it does not converge or two seeds disagree."""
    found = []
    for seed in range(4):
        model = AffinityPropagation(
            affinity="precomputed", random_state=seed, **options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            warnings.filterwarnings("ignore", "All samples have mutually equal")
            try:
                found.append(clusters(model.fit(similarity).labels_))
            except ConvergenceWarning:
                return None
    return found[0] if all(f == found[0] for f in found) else None


def problems(count, **options):
    """The first matrices of each kind, T = 4 to 12, on which scikit-learn is sure."""
    for kind in KINDS:
        taken, seed = 0, 0
        while taken < count:
            rng = np.random.default_rng(seed)
            similarity = kind(rng, rng.integers(4, 13)).astype(np.float32)
            wanted = reference(similarity.astype(float), **options)
            seed += 1
            if wanted is not None:
                taken += 1
                yield similarity, wanted


def padded(similarity, dtype):
    """Twelve points, those that the matrix lacks absent: one program for all sizes."""
    n = len(similarity)
    present = np.zeros(12, bool)
    present[np.random.default_rng(n).permutation(12)[:n]] = True
    wide = np.full((12, 12), np.nan)
    wide[np.ix_(present, present)] = similarity
    return jnp.asarray(wide, dtype), present


def net_similarity(similarity, parts, preference):
    """What affinity propagation maximises; each exemplar costs the median."""
    within = [similarity[np.ix_(sorted(p), sorted(p))].astype(float) for p in parts]
    gains = [np.max(np.sum(s, axis=0) - np.diag(s)) for s in within]
    return sum(gains) + len(parts) * preference


def check(count, dtype, **options):
    """How many of the clusterings are the same; the others are at least as good."""
    same = 0
    for similarity, wanted in problems(count, **options):
        wide, present = padded(similarity, dtype)
        got = affinity_propagation(wide, present=jnp.asarray(present), **options)
        assert got.converged
        mine = clusters(np.asarray(got.labels)[present])
        same += mine == wanted
        preference = options.get("preference", np.median(similarity.astype(float)))
        least = net_similarity(similarity, wanted, preference)
        assert net_similarity(similarity, mine, preference) >= least - 1e-5
        # The label is the first member, and the exemplar is one.
        first = np.argmax(got.labels[:, None] == got.labels[None, :], axis=1)
        np.testing.assert_array_equal(got.labels, first)
        np.testing.assert_array_equal(got.labels[got.exemplars], got.labels)
        np.testing.assert_array_equal(got.labels[~present], np.flatnonzero(~present))
    return same


# One matrix among these has two clusterings that are equally good.
@pytest.mark.slow
def test_same_clusters_as_scikit_learn_in_float32():
    assert check(25, jnp.float32) >= 99


@pytest.mark.slow
def test_same_clusters_as_scikit_learn_in_float64(x64):
    assert check(25, jnp.float64) >= 99


@pytest.mark.parametrize("preference", [-1.0, 0.3, 0.95])
def test_other_options(preference):
    options = {"preference": preference, "damping": 0.8, "convergence_iter": 30}
    assert check(5, jnp.float32, **options) == 20


@pytest.mark.slow
def test_waiting_longer_never_ends_in_worse_clusters():
    """After 50 quiet iterations, as the authors ask, scikit-learn sits on saddles."""
    assert check(25, jnp.float32, convergence_iter=50) >= 95


TOY = np.full((4, 4), 0.1) + 0.9 * np.eye(4)
TOY[[0, 1], [1, 0]], TOY[[2, 3], [3, 2]] = 0.9, 0.8


def test_toy_of_the_specification():
    for order in itertools.permutations(range(4)):
        order = np.array(order)
        toy = jnp.asarray(TOY[np.ix_(order, order)], jnp.float32)
        got = affinity_propagation(toy, convergence_iter=50)
        blocks = order // 2
        np.testing.assert_array_equal(
            got.labels[:, None] == got.labels[None, :],
            blocks[:, None] == blocks[None, :],
        )


@pytest.mark.parametrize(
    ("similarity", "preference", "wanted"),
    [
        (np.ones((3, 3)), None, [0, 0, 0]),
        (np.ones((3, 3)), 2.0, [0, 1, 2]),
        ([[1.0, 0.99], [0.99, 1.0]], None, [0, 1]),
        ([[1.0, 0.99], [0.99, 1.0]], 0.9, [0, 0]),
        ([[5.0]], None, [0]),
    ],
)
def test_equal_similarities_are_not_iterated(similarity, preference, wanted):
    similarity = jnp.asarray(similarity, jnp.float32)
    got = affinity_propagation(similarity, preference)
    np.testing.assert_array_equal(got.labels, wanted)
    reference = AffinityPropagation(affinity="precomputed", preference=preference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = reference.fit(np.asarray(similarity, float)).labels_
    assert clusters(labels) == clusters(np.asarray(wanted))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_unit_and_offset_do_not_matter(scale):
    for similarity, wanted in problems(3):
        got = affinity_propagation(jnp.asarray(similarity) * scale)
        assert clusters(np.asarray(got.labels)) == wanted
    got = affinity_propagation(jnp.asarray(TOY, jnp.float32) + 100)
    np.testing.assert_array_equal(got.labels, [0, 0, 2, 2])


def test_what_did_not_converge_says_so():
    similarity = jnp.asarray(TOY, jnp.float32)
    for options in ({"max_iter": 10}, {"max_iter": 15}):
        got = affinity_propagation(similarity, **options)
        assert not got.converged
        assert (got.labels == -1).all()
    got = affinity_propagation(similarity.at[0, 1].set(jnp.nan))
    assert not got.converged


def test_many_matrices_at_once():
    rng = np.random.default_rng(0)
    batch = jnp.asarray([blocks(rng, 6) for _ in range(4)], jnp.float32)
    got = jax.vmap(affinity_propagation)(batch)
    for i, similarity in enumerate(batch):
        alone = affinity_propagation(similarity)
        np.testing.assert_array_equal(got.labels[i], alone.labels)
