"""Metrics of predictions, against scikit-learn and NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from mtl_optax.analysis import auc, calibration, metrics, normals

RNG = np.random.default_rng(0)


def add(*batches):
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *batches)


def labels(num_classes, size=500):
    return RNG.integers(num_classes, size=size), RNG.integers(num_classes, size=size)


def test_confusion_matrix_and_its_metrics_agree_with_scikit_learn():
    guess, true = labels(5)
    guess = np.where(RNG.uniform(size=500) < 0.5, true, guess)
    matrix = jax.jit(metrics.confusion_matrix, static_argnums=2)(guess, true, 5)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(true, guess))
    oracle = sklearn.metrics
    for got, expected in [
        (metrics.pixel_accuracy(matrix), oracle.accuracy_score(true, guess)),
        (metrics.accuracy(guess, true).mean, oracle.accuracy_score(true, guess)),
        (
            metrics.mean_iou(matrix),
            oracle.jaccard_score(true, guess, average="macro"),
        ),
        (metrics.f1_score(matrix), oracle.f1_score(true, guess, average="macro")),
    ]:
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_binary_f1_of_many_attributes_agrees_with_scikit_learn():
    guess, true = labels(2, size=(40, 100))
    count = partial(metrics.confusion_matrix, num_classes=2)
    got = metrics.f1_score(jax.vmap(count)(guess, true), average="binary")
    expected = [
        sklearn.metrics.f1_score(t, g) for g, t in zip(guess, true, strict=True)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_absent_class_does_not_poison_the_mean():
    true, guess = np.array([0, 0, 1, 1]), np.array([0, 3, 1, 1])
    matrix = metrics.confusion_matrix(guess, true, 5)  # 2 and 4 occur nowhere
    expected = sklearn.metrics.jaccard_score(true, guess, average="macro")
    np.testing.assert_allclose(metrics.mean_iou(matrix), expected)  # (1/2 + 1 + 0) / 3
    np.testing.assert_allclose(metrics.mean_iou(matrix), 0.5)
    expected = sklearn.metrics.f1_score(true, guess, average="macro", zero_division=0)
    np.testing.assert_allclose(metrics.f1_score(matrix), expected, rtol=1e-6)


def test_a_single_class():
    matrix = metrics.confusion_matrix(np.zeros(6, int), np.zeros(6, int), 13)
    assert metrics.mean_iou(matrix) == metrics.pixel_accuracy(matrix) == 1
    assert metrics.f1_score(matrix) == 1


@pytest.mark.parametrize(("dtype", "ignore"), [("int32", -1), ("uint8", 255)])
def test_ignored_labels_and_narrow_dtypes(dtype, ignore):
    guess, true = labels(19)
    ignored = RNG.uniform(size=500) < 0.3
    marked = np.where(ignored, ignore, true).astype(dtype)
    matrix = metrics.confusion_matrix(guess.astype(dtype), marked, 19)
    expected = sklearn.metrics.confusion_matrix(
        true[~ignored], guess[~ignored], labels=range(19)
    )
    np.testing.assert_array_equal(matrix, expected)
    masked = metrics.confusion_matrix(guess, true, 19, mask=~ignored)
    np.testing.assert_array_equal(matrix, masked)
    no_class = np.array([19, ignore], dtype)
    for outside in (no_class, no_class[::-1]):
        beyond = metrics.confusion_matrix(outside, np.zeros(2, dtype), 19)
        assert beyond.sum() == 0


def test_depth_errors_agree_with_numpy_and_never_see_what_is_masked():
    true, guess = RNG.uniform(1, 10, (2, 8, 6)), RNG.uniform(1, 10, (2, 8, 6))
    mask = RNG.uniform(size=true.shape) < 0.5
    gap = np.abs(guess - true)[mask]
    spoilt = np.where(mask, guess, np.nan), np.where(mask, true, np.inf)
    absolute = jax.jit(metrics.absolute_error)(*spoilt, mask)
    relative = jax.jit(metrics.relative_error)(*spoilt, mask)
    np.testing.assert_allclose(absolute.mean, gap.mean(), rtol=1e-5)
    np.testing.assert_allclose(relative.mean, (gap / true[mask]).mean(), rtol=1e-5)
    assert absolute.counted == relative.counted == mask.sum()


def test_relative_error_leaves_out_tiny_targets_and_shows_nan():
    guess, true = jnp.array([1.0, 1.0, 1.0]), jnp.array([2.0, 1e-7, 0.0])
    one = metrics.relative_error(guess, true)
    assert (one.mean, one.counted) == (0.5, 1)
    published = metrics.relative_error(guess, true, min_target=0.0)
    np.testing.assert_allclose(published.mean, (0.5 + 1e7 - 1) / 2, rtol=1e-5)
    assert jnp.isnan(metrics.relative_error(guess, true.at[1].set(jnp.nan)).mean)
    with pytest.raises(ValueError, match="min_target"):
        metrics.relative_error(guess, true, min_target=-1)


def directions(size):
    x = RNG.normal(size=(*size, 3))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def angles64(guess, true):
    guess = guess / np.linalg.norm(guess, axis=-1, keepdims=True)
    return np.degrees(np.arccos(np.clip((guess * true).sum(axis=-1), -1, 1)))


def test_normal_angles_agree_with_numpy():
    true = directions((700,))
    guess = (true + 0.3 * RNG.normal(size=true.shape)) * RNG.uniform(1, 9, (700, 1))
    for size in (699, 700):
        expected = angles64(guess[:size], true[:size])
        got = jax.jit(normals.angle_counts)(guess[:size], true[:size])
        got = jax.jit(normals.normal_angles)(got)
        np.testing.assert_allclose(got.mean, expected.mean(), rtol=1e-5)
        np.testing.assert_allclose(got.median, np.median(expected), atol=0.0051)
        shares = [(expected < x).mean() for x in (11.25, 22.5, 30)]
        np.testing.assert_allclose(got.within, shares, rtol=1e-6)


def test_angle_of_a_vector_with_itself_is_zero_and_small_angles_keep_digits():
    true = jnp.asarray(directions((200,)), jnp.float32)
    counts = jax.jit(normals.angle_counts)
    for scale in (1.0, 1 + 1e-7, 3.0):  # a cosine may round to 1 + 1e-7
        mean = counts(scale * true, true).average.mean
        np.testing.assert_allclose(mean, 0, atol=2e-5)
    angle = np.radians(0.003)  # arccos in float32 has steps of 0.02 degrees here
    tilted = jnp.array([[np.sin(angle), 0, np.cos(angle)]], jnp.float32)
    average = counts(tilted, jnp.array([[0.0, 0.0, 1.0]])).average
    np.testing.assert_allclose(average.mean, 0.003, rtol=1e-3)
    opposite = normals.normal_angles(counts(-true, true))
    np.testing.assert_allclose(opposite.median, 180, atol=0.0051)


def test_invalid_zero_and_nan_normals():
    up = jnp.array([0.0, 0.0, 1.0])
    true = jnp.stack([up, jnp.zeros(3), jnp.array([1.0, -1.0, 0.0])])  # sum 0 is valid
    guess = jnp.stack([up, up, jnp.array([2.0, -2.0, 0.0])])
    counts = normals.angle_counts(guess, true)
    assert counts.average.counted == 2
    np.testing.assert_allclose(counts.average.total, 0, atol=1e-5)
    zero = normals.normal_angles(normals.angle_counts(jnp.zeros((3, 3)), true))
    np.testing.assert_allclose([zero.mean, zero.median], 90, atol=0.0051)
    spoilt = normals.angle_counts(guess.at[0].set(jnp.nan), true)
    assert jnp.isnan(spoilt.average.mean)
    np.testing.assert_allclose(normals.normal_angles(spoilt).within, 0.5)


def test_calibration_error_agrees_with_numpy():
    confidences = RNG.uniform(size=800).astype(np.float32)
    confidences[:4] = [0, 1, 0.5, 0.25]
    correct, mask = RNG.uniform(size=(2, 800)) < 0.6
    bins = jax.jit(calibration.calibration_bins, static_argnums=2)(
        np.where(mask, confidences, np.nan), correct, 10, mask
    )
    edges, expected = np.linspace(0, 1, 11), 0.0
    sure, right = confidences[mask], correct[mask]
    for b in range(10):
        inside = (sure > edges[b]) & (sure <= edges[b + 1]) | ((b == 0) & (sure == 0))
        if inside.any():
            gap = abs(right[inside].mean() - sure[inside].mean())
            expected += inside.mean() * gap
    got = calibration.expected_calibration_error(bins)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert bins.counted.sum() == mask.sum()
    edge = calibration.calibration_bins(jnp.array([0, 0.25, 0.5, 1]), jnp.ones(4), 4)
    np.testing.assert_array_equal(edge.counted, [2, 1, 0, 1])
    certain = calibration.calibration_bins(np.ones(5), np.ones(5, bool))
    assert calibration.expected_calibration_error(certain) == 0


# Each: arguments of one split of 60 entries, the count, and what is read from it.
TRUE, GUESS = directions((60,)), directions((60,))
COUNTED = {
    "accuracy": (labels(4, 60), metrics.accuracy, lambda x: x.mean),
    "absolute_error": (
        RNG.uniform(1, 9, (2, 60)),
        metrics.absolute_error,
        lambda x: x.mean,
    ),
    "relative_error": (
        RNG.uniform(1, 9, (2, 60)),
        metrics.relative_error,
        lambda x: x.mean,
    ),
    "normals": ((GUESS, TRUE), normals.angle_counts, normals.normal_angles),
    "calibration": (
        (RNG.uniform(size=60), RNG.uniform(size=60) < 0.5),
        calibration.calibration_bins,
        calibration.expected_calibration_error,
    ),
    **{
        read.__name__: (
            labels(4, 60),
            partial(metrics.confusion_matrix, num_classes=4),
            read,
        )
        for read in (metrics.pixel_accuracy, metrics.mean_iou, metrics.f1_score)
    },
}


def compiled(name):
    arguments, count, read = COUNTED[name]
    return arguments, jax.jit(count), jax.jit(read)


@pytest.mark.parametrize("name", COUNTED)
def test_batches_add_up_to_the_whole(name):
    (one, other), count, read = compiled(name)
    mask = RNG.uniform(size=60) < 0.5
    mask[10:40] = False  # the second batch has no valid entry, and must do no harm
    cuts = [slice(0, 10), slice(10, 40), slice(40, 60)]
    batches = [count(one[c], other[c], mask=mask[c]) for c in cuts]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(batches))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6),
        read(add(*batches)),
        read(count(one[mask], other[mask])),
    )


@pytest.mark.parametrize("name", COUNTED)
def test_no_data_is_nan_and_only_in_the_metric(name):
    (one, other), count, read = compiled(name)
    nothing = count(one, other, mask=np.zeros(60, bool))
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(nothing))
    assert all(np.isnan(x).all() for x in jax.tree.leaves(read(nothing)))
    assert all(
        np.isnan(x).all() for x in jax.tree.leaves(read(count(one[:0], other[:0])))
    )


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.slow
def test_counts_and_metrics_over_tasks(name):
    (one, other), count, read = compiled(name)
    tasks = [(jnp.asarray(x)[:30], jnp.asarray(x)[30:]) for x in (one, other)]
    counts = jax.vmap(count)(*[jnp.stack(x) for x in tasks])
    alone = [read(count(x, y)) for x, y in zip(*tasks, strict=True)]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for got in (read(counts), jax.vmap(read)(counts)):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), got, expected)


def test_metrics_are_float64_under_x64(x64):
    for name in COUNTED:
        (one, other), count, read = compiled(name)
        for metric in jax.tree.leaves(read(count(one, other))):
            assert metric.dtype == jnp.float64


def test_binary_f1_without_positives_is_no_data():
    matrix = metrics.confusion_matrix(np.zeros(4, int), np.zeros(4, int), 2)
    assert jnp.isnan(metrics.f1_score(matrix, average="binary"))
    assert metrics.f1_score(matrix) == 1


@pytest.mark.parametrize("name", COUNTED)
def test_shapes_that_would_broadcast_are_errors(name):
    (one, other), count, _ = COUNTED[name]
    with pytest.raises(ValueError, match="one shape"):
        count(one[:, None], other)
    with pytest.raises(ValueError, match="mask must have shape"):
        count(one, other, mask=np.ones((60, 1), bool))


def test_errors_of_metrics():
    with pytest.raises(ValueError, match="integer labels"):
        metrics.confusion_matrix(jnp.ones(3), jnp.ones(3, int), 2)
    with pytest.raises(ValueError, match="num_classes must be a Python int"):
        metrics.confusion_matrix(jnp.ones(3, int), jnp.ones(3, int), 2.0)
    with pytest.raises(ValueError, match="confusion matrix"):
        metrics.mean_iou(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="for 2 classes; got 3"):
        metrics.f1_score(jnp.ones((3, 3)), average="binary")
    with pytest.raises(ValueError, match="average must be one of"):
        metrics.f1_score(jnp.ones((3, 3)), average="micro")
    with pytest.raises(ValueError, match="3 entries on the last axis"):
        normals.angle_counts(jnp.ones((3, 4)), jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="num_bins"):
        calibration.calibration_bins(jnp.ones(3), jnp.ones(3), num_bins=0)


@pytest.mark.parametrize("counts", [metrics.Average(1.0, 2), auc.AucCounts(1, 2, 3)])
def test_counts_add_up_and_are_not_joined_as_tuples(counts):
    assert counts + counts == jax.tree.map(lambda x: 2 * x, counts)
    with pytest.raises(TypeError, match="counts of one kind add up"):
        _ = counts + (1.0, 2)  # noqa: RUF005  of two kinds
