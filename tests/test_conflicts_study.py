"""The study of conflicts: what it measures, its pairs, and its claim."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.studies.conflicts import pairs, problem
from benchmarks.studies.conflicts.claim import measured
from mtl_optax.study.command import cli
from mtl_optax.study.data.digits import Split
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.report import claims

S, T, P = 4, 3, 50


def gradients(seed=0):
    """`[records, seeds, S, T, P]`."""
    return np.random.default_rng(seed).standard_normal((2, 3, S, T, P)) + 0.3


def recorded(own):
    """As the engine records it: a scale, and samples and tasks joined."""
    flat = own.reshape(*own.shape[:2], -1, own.shape[-1])
    opposite = (flat[:, :, :, None] * flat[:, :, None] < 0).mean(axis=-1)
    path = np.stack([flat @ np.moveaxis(flat, -1, -2), opposite], axis=2)
    return SimpleNamespace(path=path[:, None])


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def similarity(a, b):
    a, b = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    return 2 * a * b / (a**2 + b**2)


def test_pairs_are_those_of_the_gradients_themselves():
    own = gradients()
    scaled = own * np.where(np.arange(T) == 0, 10, 1)[:, None]
    found = pairs.recorded(recorded(own), T, 10, 0)
    tasks, samples = found.between_tasks(), found.between_samples()
    assert tasks.cosine.shape == (2, 3, 3, S)  # three pairs of tasks
    assert samples.cosine.shape == (2, 3, T, 6)
    first, last = scaled[:, :, :, 0], scaled[:, :, :, 2]
    np.testing.assert_allclose(tasks.cosine[:, :, 1], cosine(first, last))
    np.testing.assert_allclose(tasks.magnitude[:, :, 1], similarity(first, last))
    one, two = scaled[:, :, 1, 0], scaled[:, :, 3, 0]
    np.testing.assert_allclose(samples.cosine[:, :, 0, 4], cosine(one, two))
    np.testing.assert_allclose(samples.signs[:, :, 0, 4], (one * two < 0).mean(axis=-1))
    only = found.between_samples([1])
    np.testing.assert_array_equal(only.cosine, samples.cosine[:, :, 1:2])

    batch = scaled.mean(axis=2)
    of_batches, of_sums = found.tasks_of_batches(), found.samples_of_sums()
    np.testing.assert_allclose(
        of_batches.magnitude[:, :, 2, 0], similarity(batch[:, :, 1], batch[:, :, 2])
    )
    sums = scaled.sum(axis=3)
    np.testing.assert_allclose(
        of_sums.cosine[:, :, 0, 5], cosine(sums[:, :, 2], sums[:, :, 3])
    )


def test_statistics_are_of_an_epoch_and_a_group():
    own = np.zeros((4, 1, 2, 2))
    own[:2, 0, 0] = [0.5, -0.5]  # sd 1/2 in one group and epoch of four
    own[2:, 0, 1] = [0.2, np.nan]
    own[2:, 0, 0] = own[:2, 0, 1] = 0.1
    found = pairs.statistics(pairs.Pairs(own, own, np.abs(own)), windows=2)
    np.testing.assert_allclose(found["spread"], 0.5 / 4)
    np.testing.assert_allclose(found["conflicts"], 100 * 0.5 / 4)
    np.testing.assert_allclose(found["magnitude"], (0 + 0.1 + 0.1 + 0.2) / 4)


def test_random_vectors():
    found = pairs.null(400)
    assert found.cosine.std() == pytest.approx(1 / 20, rel=0.1)
    statistics = pairs.statistics(found, windows=1)
    assert statistics["conflicts"] == pytest.approx(50, abs=7)
    assert statistics["signs"] == pytest.approx(50, abs=1)
    assert statistics["magnitude"] > 0.99


def result(tasks_apart, samples_apart):
    """Tasks with magnitudes a factor apart, samples likewise, otherwise alike."""
    own = gradients()
    own = own * (tasks_apart ** np.arange(T))[:, None]
    own = own * (samples_apart ** np.arange(S))[:, None, None]
    methods = {pairs.JOINT: recorded(own)}
    methods |= {f"{pairs.ONLY}{t}": recorded(own) for t in range(T)}
    part = SimpleNamespace(
        part=SimpleNamespace(scales=(1,)),
        tasks=tuple(map(str, range(T))),
        methods=methods,
        settings=SimpleNamespace(steps=10, batch_size=64),
    )
    return SimpleNamespace(parts={"three": part})


@pytest.mark.parametrize(
    ("apart", "word"), [((10.0, 1.0), claims.HOLDS), ((1.0, 10.0), claims.NOT_HERE)]
)
def test_the_claim_on_magnitudes(apart, word):
    rows = measured(result(*apart))
    assert len(rows) == 6
    said = [row.verdict for row in rows if "magnitude" in row.what]
    assert said == [word] * 2


@pytest.mark.slow
def test_what_is_measured_are_gradients_of_single_samples():
    own = problem.problem("unlike", steps=10)
    params, state = own.init(0)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:16]), own.splits["train"])

    def after(number):
        now = Now(jnp.float32(number / 10), jax.random.key(0))
        return jax.jit(own.losses)(params, state, batch, now)

    losses, unmoved = after(3)
    np.testing.assert_array_equal(unmoved, state)
    _, found = after(4)

    def of_one(trunk, sample, task):
        at = np.full(problem.SAMPLES, sample)  # so many times, whose mean is its own
        one = Split(batch.images[at], batch.labels[at])
        now = Now(jnp.float32(0), jax.random.key(0))
        mixed = type(params)({**params, "trunk": trunk})
        return own.losses(mixed, state, one, now)[0][task]

    def vector(sample, task):
        leaves = jax.tree.leaves(jax.grad(of_one)(params["trunk"], sample, task))
        return np.concatenate([np.ravel(leaf) for leaf in leaves])

    places = [(0, 0), (0, 1), (7, 1)]
    some = np.stack([vector(*x) for x in places])
    at = np.array([s * 2 + t for s, t in places])
    assert some.shape[1] == own.facts["shared_parameters"]
    np.testing.assert_allclose(found[0][np.ix_(at, at)], some @ some.T, rtol=1e-3)
    opposite = (some[:, None] * some[None] < 0).mean(axis=-1)
    np.testing.assert_allclose(found[1][np.ix_(at, at)], opposite, atol=1e-4)
    sums = batch.labels[:, 1]
    assert sums.max() > 9
    assert losses[1] > 1


def test_sum_is_that_of_both_digits():
    labels = np.array([[3, 8, 1, 0], [9, 9, 0, 0]])
    split = Split(np.zeros((2, 144), np.float32), labels)
    own = problem.answers(split, ("left", problem.SUM))
    np.testing.assert_array_equal(own.labels, [[3, 11], [9, 18]])


@pytest.mark.slow
def test_the_quick_form_from_end_to_end(tmp_path):
    assert cli.main(["study", "conflicts", "--quick", "--out", str(tmp_path)]) == 0
    with open(tmp_path / "claim.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6  # those at equal scales
    with open(tmp_path / "pairs.csv", newline="") as file:
        found = list(csv.DictReader(file))
    magnitude = {
        row["scale"]: float(row["magnitude"])
        for row in found
        if row["pairs"] == "between tasks, trained jointly"
    }
    assert magnitude["1000"] < 0.1 < magnitude["10"] < 0.4 < magnitude["1"]
    assert {x.stem for x in tmp_path.glob("*.png")} == {"histograms", "by_epoch"}
