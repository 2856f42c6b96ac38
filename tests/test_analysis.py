"""Analysis: measures of gradients, metrics of predictions, comparison of methods."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

import mtl_optax as mtl
from mtl_optax.analysis import (
    calibration,
    comparison,
    conflict,
    metrics,
    normals,
    student,
)
from mtl_optax.core.task_grads.computed import Computed

RNG = np.random.default_rng(0)


# --- conflict ---------------------------------------------------------------------


def by_hand(stacked):
    """The three matrices in float64, from the concatenated gradients."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(stacked)]
    rows = np.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)
    norms = np.linalg.norm(rows, axis=1)
    product, squares = np.outer(norms, norms), norms**2
    return {
        "cosine_similarity": rows @ rows.T / product,
        "magnitude_similarity": 2 * product / np.add.outer(squares, squares),
        "conflict_fraction": (rows[:, None] * rows[None] < 0).mean(axis=-1),
    }


def gradients(num_tasks, dtype=jnp.float32):
    scales = 10.0 ** np.arange(num_tasks)
    shapes = {"a": (3, 5), "scalar": (), "long": (4500,)}
    return {
        name: jnp.asarray(
            RNG.normal(size=(num_tasks, *shape))
            * scales.reshape(-1, *[1] * len(shape)),
            dtype,
        )
        for name, shape in shapes.items()
    }


MEASURES = ["cosine_similarity", "magnitude_similarity", "conflict_fraction"]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("form", ["stacked", "rows"])
@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_conflict_measures(measure, form, num_tasks, dtype):
    stacked = gradients(num_tasks, dtype)
    rows = [jax.tree.map(lambda x, t=t: x[t], stacked) for t in range(num_tasks)]
    given = stacked if form == "stacked" else Computed.rows(tuple(rows))
    got = jax.jit(lambda: getattr(conflict, measure)(given))()
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, by_hand(stacked)[measure], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got, got.T)


@pytest.mark.parametrize("measure", MEASURES)
def test_conflict_measures_take_lazy_gradients_inside_jit(measure):
    params = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.3)}

    def losses(params, x):
        out = jnp.vdot(params["w"], x) + params["b"]
        return {"one": out**2, "two": -3 * out + params["b"] ** 2}

    @jax.jit
    def both(params, x):
        _, lazy = mtl.lazy_task_grads(losses)(params, x)
        _, stacked = mtl.task_grads(losses)(params, x)
        return getattr(conflict, measure)(lazy), getattr(conflict, measure)(stacked)

    lazy, stacked = both(params, jnp.array([0.3, 1.0, 2.0]))
    np.testing.assert_allclose(lazy, stacked, rtol=1e-6)


def test_norms_1_and_3_have_magnitude_similarity_of_the_paper():
    stacked = {"w": jnp.array([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.0]])}
    got = conflict.magnitude_similarity(stacked)
    expected = [[1, 0.6, 0, 0], [0.6, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_conflict_of_zero_and_tiny_gradients():
    stacked = {"w": jnp.array([[1e-30, 1e-30], [-1e-30, 1e-30], [0.0, 0.0]])}
    got = conflict.conflict_fraction(stacked)  # products of entries underflow
    np.testing.assert_array_equal(got, [[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    zero = {"w": jnp.array([[3.0, 4.0], [0.0, 0.0]])}
    np.testing.assert_array_equal(conflict.cosine_similarity(zero), np.eye(2))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_conflict_measures_of_sharded_gradients(axis_type):
    kind = getattr(jax.sharding.AxisType, axis_type)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    spec = jax.sharding.PartitionSpec(None, "x")
    stacked = {"w": jnp.asarray(RNG.normal(size=(3, 16)), jnp.float32)}
    sharded = jax.device_put(stacked, jax.sharding.NamedSharding(mesh, spec))
    for measure in MEASURES:
        got = jax.jit(getattr(conflict, measure))(sharded)
        np.testing.assert_allclose(got, by_hand(stacked)[measure], atol=1e-6)


def test_everything_is_float64_under_x64(x64):
    stacked = gradients(2, jnp.float64)
    for measure in MEASURES:
        got = getattr(conflict, measure)(stacked)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, by_hand(stacked)[measure], rtol=1e-10)
    for name in COUNTED:
        (one, other), count, read = compiled(name)
        for metric in jax.tree.leaves(read(count(one, other))):
            assert metric.dtype == jnp.float64


def test_conflict_over_seeds_and_without_coordinates():
    stacked = jnp.asarray(RNG.normal(size=(4, 2, 7)), jnp.float32)
    for measure in MEASURES:
        function = getattr(conflict, measure)
        expected = jnp.stack([function({"w": x}) for x in stacked])
        got = jax.vmap(function)({"w": stacked})
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        with pytest.raises(ValueError, match=r"no (leaves|coordinates)"):
            function({})
    with pytest.raises(ValueError, match="no coordinates"):
        conflict.conflict_fraction({"w": jnp.zeros((2, 0))})


# --- metrics ----------------------------------------------------------------------


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
def test_counts_and_metrics_over_tasks(name):
    (one, other), count, read = compiled(name)
    tasks = [(jnp.asarray(x)[:30], jnp.asarray(x)[30:]) for x in (one, other)]
    counts = jax.vmap(count)(*[jnp.stack(x) for x in tasks])
    alone = [read(count(x, y)) for x, y in zip(*tasks, strict=True)]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for got in (read(counts), jax.vmap(read)(counts)):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), got, expected)


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


# --- comparison -------------------------------------------------------------------

HIGHER = {"seg": [1, 1], "depth": [0, 0], "normal": [0, 0, 1, 1, 1]}


def nyuv2(*row):
    """A printed row, percentages as fractions."""
    return {
        "seg": np.array(row[:2]) / 100,
        "depth": np.array(row[2:4]),
        "normal": np.array([*row[4:6], *(x / 100 for x in row[6:])]),
    }


STL = nyuv2(38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15)
# Published rows with their delta_m and, where the study notes give it, delta_p.
ROWS = {
    "LS": (39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08),
    "MGDA": (30.47, 59.90, 0.6070, 0.2555, 24.88, 19.45, 29.18, 56.88, 69.36),
    "PCGrad": (38.06, 64.64, 0.5550, 0.2325, 27.41, 22.80, 23.86, 49.83, 63.14),
    "CAGrad": (39.79, 65.49, 0.5486, 0.2250, 26.31, 21.58, 25.61, 52.36, 65.58),
    "Nash-MTL": (40.13, 65.93, 0.5261, 0.2171, 25.26, 20.08, 28.40, 55.47, 68.15),
    "FAMO": (38.88, 64.90, 0.5474, 0.2194, 25.06, 19.57, 29.21, 56.61, 68.98),
}
DELTA_M = dict(zip(ROWS, (5.59, 1.38, 3.97, 0.19, -4.05, -4.10), strict=True))
DELTA_P = {"MGDA": -1.66, "PCGrad": 1.11, "CAGrad": 4.33}


@pytest.mark.parametrize("method", ROWS)
def test_deltas_of_published_nyuv2_rows(method):
    row = nyuv2(*ROWS[method])
    by_task = comparison.delta_m(row, STL, HIGHER)
    assert round(float(by_task), 2) == DELTA_M[method]
    flat = [np.concatenate([x[task] for task in HIGHER]) for x in (row, STL, HIGHER)]
    np.testing.assert_allclose(comparison.delta_m(*flat), by_task)
    if method in DELTA_P:
        delta = comparison.delta_p(row, STL, HIGHER)
        assert round(float(delta), 2) == DELTA_P[method]


def test_the_two_deltas_disagree_on_whether_pcgrad_helps():
    row = nyuv2(*ROWS["PCGrad"])
    assert comparison.delta_m(row, STL, HIGHER) > 0  # worse than single-task
    assert comparison.delta_p(row, STL, HIGHER) > 0  # better than single-task


def test_deltas_keep_the_axis_of_seeds():
    rows = [nyuv2(*ROWS[method]) for method in ROWS]
    stacked = {task: np.stack([row[task] for row in rows]) for task in HIGHER}
    for delta in (comparison.delta_m, comparison.delta_p):
        expected = [delta(row, STL, HIGHER) for row in rows]
        np.testing.assert_allclose(delta(stacked, STL, HIGHER), expected)
        np.testing.assert_allclose(delta(STL, STL, HIGHER), 0)
    spoilt = STL | {"depth": np.array([np.nan, 1.0])}
    assert np.isnan(comparison.delta_m(spoilt, STL, HIGHER))
    assert np.isnan(comparison.delta_p(spoilt, STL, HIGHER))


def test_errors_of_deltas():
    with pytest.raises(ValueError, match="see delta_m"):
        comparison.delta_p([1.0], [1.0], [True])
    with pytest.raises(ValueError, match="same tasks"):
        comparison.delta_m({"a": [1.0]}, {"b": [1.0]}, {"a": [True]})
    with pytest.raises(ValueError, match="no tasks"):
        comparison.delta_p({}, {}, {})
    with pytest.raises(ValueError, match="agree in K"):
        comparison.delta_m([1.0, 2.0], [1.0], [True])
    for baseline in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="must be positive"):
            comparison.delta_m([1.0], [baseline], [True])
    with pytest.raises(ValueError, match="True or False"):
        comparison.delta_m([1.0], [1.0], [-1])


def test_mean_and_sd():
    values = RNG.normal(size=(3, 7))
    got = comparison.mean_and_sd(values, axis=1)
    np.testing.assert_allclose(got.mean, values.mean(axis=1))
    np.testing.assert_allclose(got.sd, values.std(axis=1, ddof=1))
    assert got.num_seeds == 7


def test_one_seed_is_an_error_that_says_so():
    with pytest.raises(ValueError, match=r"1 seed\(s\) give no spread"):
        comparison.mean_and_sd([91.0])
    with pytest.raises(ValueError, match=r"1 seed\(s\) give no spread"):
        comparison.paired_bootstrap([91.0], [90.0])
    with pytest.raises(ValueError, match="got one number"):
        comparison.mean_and_sd(91.0)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_bootstrap_agrees_with_scipy(confidence):
    common, own = RNG.normal(0, 10, 12), RNG.normal(1, 1, 12)
    a, b = common + own, common
    got = comparison.paired_bootstrap(a, b, confidence=confidence)
    expected = scipy.stats.bootstrap(
        (a - b,),
        np.mean,
        n_resamples=10_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose([got.low, got.high], expected, atol=0.03)
    np.testing.assert_allclose(got.mean, own.mean())
    assert got.num_seeds == 12
    again = comparison.paired_bootstrap(a, b, confidence=confidence)
    assert all(map(operator.eq, got, again))
    other = comparison.paired_bootstrap(b, a, confidence=confidence)
    np.testing.assert_allclose([other.low, other.high], [-got.high, -got.low])


def test_paired_bootstrap_of_several_tasks_at_once():
    a, b = RNG.normal(size=(2, 6, 3))
    got = comparison.paired_bootstrap(a, b)
    for t in range(3):
        alone = comparison.paired_bootstrap(a[:, t], b[:, t])
        np.testing.assert_allclose([got.low[t], got.high[t]], [alone.low, alone.high])
    assert (got.low < got.mean).all()
    assert (got.mean < got.high).all()


@pytest.mark.parametrize("interval", [comparison.paired_bootstrap, comparison.paired_t])
def test_errors_of_paired_intervals(interval):
    with pytest.raises(ValueError, match="from the same seed"):
        interval([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="confidence must be between"):
        interval([1.0, 2.0], [1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="give no spread"):
        interval([1.0], [2.0])


def test_errors_of_paired_bootstrap():
    with pytest.raises(ValueError, match="num_resamples"):
        comparison.paired_bootstrap([1.0, 2.0], [1.0, 2.0], num_resamples=0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_paired_t_agrees_with_scipy(seeds):
    a, b = RNG.normal(size=(2, seeds, 3))
    got = comparison.paired_t(a, b, confidence=0.9)
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.9)
    np.testing.assert_allclose([got.low, got.high], expected)
    np.testing.assert_allclose(got.mean, (a - b).mean(axis=0))
    assert got.num_seeds == seeds


def test_student_agrees_with_scipy():
    for freedom in range(1, 40):
        for confidence in (0.5, 0.95, 0.9999):
            t = scipy.stats.t.ppf((1 + confidence) / 2, freedom)
            within = student.probability_within(t, freedom)
            assert within == pytest.approx(confidence, abs=1e-12)
            assert student.quantile(confidence, freedom) == pytest.approx(t, rel=1e-8)


@pytest.mark.parametrize(
    ("name", "expected_t", "expected_bootstrap"),
    [("normal", 0.95, 0.83), ("t3", 0.96, 0.83), ("exponential", 0.88, 0.79)],
)
def test_coverage_with_five_seeds(name, expected_t, expected_bootstrap):
    """What the docstrings say of nominal 95 % intervals; 4,000 studies at once."""
    rng = np.random.default_rng(0)
    draw, center = {
        "normal": (rng.standard_normal, 0.0),
        "t3": (lambda size: rng.standard_t(3, size), 0.0),
        "exponential": (lambda size: rng.exponential(size=size), 1.0),
    }[name]
    differences = draw((5, 4000))
    for interval, expected in [
        (comparison.paired_t(differences, np.zeros((5, 4000))), expected_t),
        (
            comparison.paired_bootstrap(differences, np.zeros((5, 4000)), 500),
            expected_bootstrap,
        ),
    ]:
        covered = (interval.low <= center) & (center <= interval.high)
        assert covered.mean() == pytest.approx(expected, abs=0.02)
