"""Area under the ROC curve by counts, against scikit-learn's over all scores."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from sklearn.metrics import roc_auc_score

from mtl_optax.analysis.auc import auc, auc_counts, auc_error

RNG = np.random.default_rng(0)
count = jax.jit(auc_counts)


def scores(rows, shift=1.0, share=0.3, mean=0.0, sd=1.0):
    targets = (RNG.uniform(size=rows) < share).astype(np.int32)
    logits = mean + sd * (RNG.normal(size=rows) + shift * targets)
    return logits.astype(np.float32), targets


def add(*counts):
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *counts)


@pytest.mark.parametrize(
    "case",
    [
        {"rows": 20_000},
        {"rows": 20_000, "share": 0.01, "mean": -4.5},  # clicks
        {"rows": 20_000, "shift": 4.0, "sd": 10.0},
        {"rows": 300, "shift": 0.0},
    ],
)
def test_agrees_with_scikit_learn(case):
    logits, targets = scores(**case)
    counts = count(logits, targets)
    exact = roc_auc_score(targets, logits)
    assert abs(auc(counts) - exact) < 1e-4
    assert abs(auc(counts) - exact) < auc_error(counts) + 1e-6


def test_bound_of_normal_scores_is_below_a_ten_thousandth():
    logits, targets = scores(100_000, shift=0.5)
    assert auc_error(count(logits, targets)) < 1e-4


def test_ties_count_half():
    logits, targets = scores(500)
    logits = np.round(logits)
    np.testing.assert_allclose(
        auc(count(logits, targets)), roc_auc_score(targets, logits), atol=1e-6
    )


def test_scores_within_one_bin_are_a_coin_with_a_bound_that_says_so():
    logits, targets = scores(100, sd=1e-6)
    counts = count(5 + logits, targets)
    np.testing.assert_allclose((auc(counts), auc_error(counts)), 0.5, rtol=1e-6)


def test_batches_of_any_size_add_up_to_the_whole():
    logits, targets = scores(1000)
    cuts = (0, 1, 4, 500, 1000)
    parts = [auc_counts(logits[a:b], targets[a:b]) for a, b in itertools.pairwise(cuts)]
    whole = count(logits, targets)
    jax.tree.map(np.testing.assert_array_equal, add(*parts), whole)


def test_eight_devices_count_as_one():
    logits, targets = scores(800)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P())
    def counted(logits, targets):
        return jax.lax.psum(auc_counts(logits, targets), "data")

    one, eight = count(logits, targets), counted(logits, targets)
    jax.tree.map(np.testing.assert_array_equal, one, eight)
    np.testing.assert_array_equal(auc(one), auc(eight))


def test_masked_and_missing_rows_count_nowhere():
    logits, targets = scores(100)
    kept = count(logits[:60], targets[:60])
    masked = auc_counts(
        np.where(np.arange(100) < 60, logits, np.nan), targets, np.arange(100) < 60
    )
    missing = count(logits, np.where(np.arange(100) < 60, targets, -1))
    for other in masked, missing:
        jax.tree.map(np.testing.assert_array_equal, other, kept)


def test_an_absent_class_and_a_nan_logit_show():
    logits, targets = scores(50)
    assert np.isnan(auc(count(logits, np.ones_like(targets))))
    assert np.isnan(auc(count(logits[:0], targets[:0])))
    broken = count(np.where(np.arange(50) == 7, np.nan, logits), targets)
    assert broken.invalid == 1
    assert np.isnan(auc(broken))


def test_infinite_and_narrow_logits_have_a_bin():
    logits = np.array([-np.inf, -1e30, 0.0, np.inf, 7.0], jnp.bfloat16)
    counts = count(logits, np.array([0, 0, 0, 1, 1]))
    assert auc(counts) == 1
    assert sum(map(np.sum, counts)) == 5


def test_tasks_are_mapped():
    logits, targets = zip(*(scores(200) for _ in range(3)), strict=True)
    counts = jax.vmap(auc_counts)(np.stack(logits), np.stack(targets))
    each = [auc(count(one, other)) for one, other in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(auc(counts), each, rtol=1e-6)


def test_shapes_must_match():
    with pytest.raises(ValueError, match="one shape"):
        auc_counts(np.zeros((3, 1)), np.zeros(3, int))
