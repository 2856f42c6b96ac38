"""Comparison of methods: deltas of published rows, intervals of paired runs."""

import operator

import numpy as np
import pytest
import scipy.stats

from mtl_optax.analysis import comparison, student

RNG = np.random.default_rng(0)


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


def test_an_infinite_run_is_unknown_without_a_warning():
    runs, infinite = np.array([1.0, 2.0, 4.0]), np.array([1.0, np.inf, 3.0])
    for one, other in ((infinite, runs), (runs, infinite), (infinite, infinite)):
        found = comparison.paired_t(one, other)
        assert np.isnan([found.low, found.high]).all()
        comparison.paired_bootstrap(one, other, 50)
    assert np.isnan(comparison.paired_bootstrap(infinite, infinite).mean)
    assert np.isnan(comparison.mean_and_sd(infinite).sd)
    for base in (np.inf, 1.0):
        comparison.delta_m([np.inf, 1.0], [base, 1.0], [1, 1])
        comparison.delta_p({"a": [np.inf]}, {"a": [base]}, {"a": [True]})
