"""The study of VMTL: its domains, its batches, its arms and what they exchange."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.studies.vmtl import domains, study
from benchmarks.studies.vmtl.arms import ARMS
from benchmarks.studies.vmtl.figure import full
from benchmarks.studies.vmtl.problem import problem
from benchmarks.studies.vmtl.rule import judge
from mtl_optax.nn import vmtl_losses
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.study import MethodResult
from mtl_optax.study.report import files, one

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
        domains.labelled(scans, fraction, 0)[0].features.shape
        for fraction in study.FRACTIONS
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
    found = domains.surrogates(domains.Examples(features, digits))
    assert found.shape == (4, 3, 3, 2)
    np.testing.assert_array_equal(found[0, :, 1], features[1:, 1])
    np.testing.assert_array_equal(found[2, :, 0], features[[0, 1, 3], 0])


@pytest.mark.slow
def test_the_study_runs_and_tells_what_was_learned(tmp_path):
    part = study.STUDY.quick[0]
    methods, grid = ("single", "vmtl_mixture"), {"beta": (1e-3, 1e-2), "eta": (1e-4,)}
    grids = dict.fromkeys(methods, grid)
    settings = part.quick._replace(methods=methods, steps=STEPS, points=2, grids=grids)
    ticks = []
    result = run(part, settings, lambda *tick: ticks.append(tick))
    assert ("single", "training", STEPS) in ticks
    single, ours = result.methods.values()
    assert single.losses.shape == ours.losses.shape == (2, 1, 2, 4)
    assert single.metrics["test"]["nll"].shape == (2, 1, 2, 4)
    assert single.path is None
    weights = ours.path
    assert weights.shape == (2, 1, 2, 2, 4, 3)  # classifier and representation
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert np.abs(weights[-1, ..., 0, :, :] - 1 / 3).max() > 1e-4
    config = files.config(result, "command", 1.0)
    files.write(tmp_path, one.document(result, config))
    assert (tmp_path / "prior_weights.png").exists()
    assert config["fraction_of_labels"] == 0.05
    assert set(config["chosen_settings"]) == {"single", "vmtl_mixture"}


def test_weights_stand_where_the_other_domains_do():
    weights = np.arange(2 * 3 * 2.0).reshape(2, 3, 2)
    mean, sd = full(weights)
    assert np.isnan(np.diag(mean)).all()
    assert mean[0, 1] == weights[:, 0, 0].mean()
    assert mean[2, 1] == weights[:, 2, 1].mean()
    assert sd[1, 0] == weights[:, 1, 0].std(ddof=1)


@pytest.mark.parametrize("name", ["single", "pooled"])
def test_losses_are_those_of_the_networks(name):
    """Half of beta at half of the steps; pooled domains have a quarter of one loss."""
    arm, of = ARMS[name], problem(0.05, name)
    params, state = of.init(0)
    numbers = of.draw(0, 0, 1, 64)[0]
    now = Now(jnp.float32(0.5), jax.random.key(3))
    found, after = jax.jit(of.losses)(params, state, numbers, now, beta=0.2, eta=0.01)
    jax.tree.map(np.testing.assert_array_equal, after, state)  # nothing is exchanged

    x, digits = (np.asarray(x)[np.arange(4)[:, None], numbers] for x in state.seen)
    graphdef = nnx.graphdef(arm.network(jax.random.key(0)))
    last = arm.networks - 1
    own, before = jax.tree.map(lambda leaf: leaf[last], (params, state.networks))
    batch = {
        "single": {"plain": (x[last], digits[last])},
        "pooled": {"plain": (x.reshape(-1, 64), digits.ravel())},
    }[name]
    key = jax.random.split(now.key, arm.networks)[last]
    wanted, _ = jax.jit(
        lambda params: vmtl_losses(
            *(nnx.merge(graphdef, params), before, batch),
            **{"key": key, "beta": 0.1, "eta": 0.01, "num_samples": 2},
        )
    )(own)
    wanted = np.array([wanted[task] for task in arm.tasks])
    if name == "pooled":
        wanted = np.repeat(wanted / 4, 4)
    np.testing.assert_allclose(found[-len(wanted) :], wanted, rtol=1e-5)


def test_vmtl_is_held_against_its_control():
    nothing = MethodResult(*(None,) * len(MethodResult._fields))
    scores = {"single": 70.0, "shared_encoder": 71.0, "vmtl_sum": 73.0}
    spread = np.array([-0.1, 0.0, 0.1])[:, None] * np.array([1.0, 2.0])[None]
    results = {
        arm: nothing._replace(score=(mean + factor * spread)[None])
        for factor, (arm, mean) in enumerate(scores.items())
    }
    told = judge(results, ("a", "b"))
    assert told.verdicts == {
        **{"single": "baseline", "shared_encoder": "better", "vmtl_sum": "better"},
    }
    assert told.sentences["vmtl_sum"].startswith(
        "vmtl_sum, better: +3.00 [+2.25, +3.75] points from single, mean over domains ("
    )
    assert told.statement == (
        "vmtl_sum against shared_encoder, better: +2.00 [+1.63, +2.37]."
    )
    del results["shared_encoder"]
    assert "without shared_encoder" in judge(results, ("a", "b")).statement
