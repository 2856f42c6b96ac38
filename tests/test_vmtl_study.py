"""The study of VMTL: its domains, its batches, its arms and what they exchange."""

import json

import numpy as np
import pytest

from mtl_optax.study import domains, vmtl, vmtl_training
from mtl_optax.study.compare import run
from mtl_optax.study.figures.prior_weights import full
from mtl_optax.study.report import write
from mtl_optax.study.verdicts.vmtl import word

STEPS = 4


@pytest.fixture(scope="module")
def scans():
    return domains.four_domains()


def test_domains_are_what_they_are_called(scans):
    scan = np.zeros((1, 8, 8), np.float32)
    scan[0, 0, 7], scan[0, 3, 3] = 1, 0.9
    plain, rotated, inverted, blurred = domains.views(scan)
    np.testing.assert_array_equal(plain, scan)
    assert rotated[0, 0, 0] == 1  # the upper right corner is the upper left one now
    np.testing.assert_array_equal(inverted, 1 - scan)
    np.testing.assert_allclose(blurred[0, 2:5, 2:5], 0.1, rtol=1e-6)
    np.testing.assert_allclose(blurred[0, 0, 7], 1 / 9, rtol=1e-6)
    assert {name: len(x) for name, x in scans.digits.items()} == {
        "train": 1097,
        "val": 300,
        "test": 400,
    }


def test_labelled_scans_have_the_share_of_each_digit_and_differ_by_domain(scans):
    train, counts = domains.labelled(scans, 0.05, seed=0)
    every = np.bincount(scans.digits["train"])
    np.testing.assert_allclose(counts, 0.05 * every, atol=0.5)
    for d in range(4):
        known = train.digits[d] >= 0
        np.testing.assert_array_equal(np.bincount(train.digits[d][known]), counts)
    shapes = {
        domains.labelled(scans, share, 0)[0].features.shape for share in vmtl.SHARES
    }
    assert len(shapes) == 1  # the programs of all parts are one
    batches = domains.batches(counts, steps=50, of_each=2, seed=0)
    for d in range(4):
        drawn = train.digits[d][batches[:, d]]
        np.testing.assert_array_equal(
            np.sort(drawn), np.repeat(np.arange(10), 2)[None].repeat(50, axis=0)
        )
    assert set(batches.ravel()) == set(range(counts.sum()))
    again, _ = domains.labelled(scans, 0.05, seed=0)
    np.testing.assert_array_equal(train.features, again.features)
    assert (domains.labelled(scans, 0.05, seed=1)[0].features != train.features).any()


def test_surrogates_are_made_of_labelled_scans_of_the_digit():
    features = np.arange(4 * 3 * 2).reshape(4, 3, 2).astype(np.float32)
    digits = np.array([[0, 1, -1]] * 4)  # the third has no label
    found = vmtl_training.surrogates(domains.Examples(features, digits))
    assert found.shape == (4, 3, 3, 2)
    np.testing.assert_array_equal(found[0, :, 1], features[1:, 1])
    np.testing.assert_array_equal(found[2, :, 0], features[[0, 1, 3], 0])


@pytest.mark.slow
def test_the_study_runs_and_tells_what_was_learned(tmp_path):
    study = vmtl.SUITE.quick[0]
    methods, grid = ("single", "vmtl_mixture"), {"beta": (1e-3, 1e-2), "eta": (1e-4,)}
    grids = dict.fromkeys(methods, grid)
    settings = study.quick._replace(methods=methods, steps=STEPS, points=2, grids=grids)
    ticks = []
    results = run(study, settings, lambda *tick: ticks.append(tick))
    assert ("single", "training", STEPS) in ticks
    single, ours = results.outcomes.values()
    assert single.losses.shape == ours.losses.shape == (2, 1, 2, 4)
    assert single.metrics["test"]["nll"].shape == (2, 1, 2, 4)
    assert single.readings == {}
    weights = ours.readings["classifier_prior"]
    assert weights.shape == (1, 1, 2, 4, 3)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert np.abs(weights - 1 / 3).max() > 1e-4
    write(tmp_path, results, "command", 1.0)
    assert (tmp_path / "prior_weights.png").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["share_of_labels"] == 0.05
    assert set(config["chosen_settings"]) == {"single", "vmtl_mixture"}


def test_weights_stand_where_the_other_domains_do():
    weights = np.arange(2 * 3 * 2.0).reshape(2, 3, 2)
    mean, sd = full(weights)
    assert np.isnan(np.diag(mean)).all()
    assert mean[0, 1] == weights[:, 0, 0].mean()
    assert mean[2, 1] == weights[:, 2, 1].mean()
    assert sd[1, 0] == weights[:, 1, 0].std(ddof=1)


def test_words_follow_the_interval():
    assert word(np.array([1.0, 1.1, 0.9])) == "better"
    assert word(np.array([-1.0, -1.1, -0.9])) == "worse"
    assert word(np.array([1.0, -1.0, 0.1])) == "not surely other"
    assert word(np.array([1.0])) == "unknown"
