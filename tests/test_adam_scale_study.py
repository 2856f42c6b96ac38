"""The study of Adam and scales: its toy, its rule, its claim."""

from collections import namedtuple

import jax
import numpy as np
import pytest

from mtl_optax.study.report import claims
from mtl_optax.study.studies.adam_scale import claim, problem, report, rule
from mtl_optax.study.studies.adam_scale.arms import ARMS
from mtl_optax.study.studies.adam_scale.study import STUDY

Own = namedtuple("Own", "path")
Result = namedtuple("Result", "methods settings")
SEEDS, TRUNK = 2, 460


def starts():
    """`[seeds, P]`, the trunk first."""
    rows = []
    for seed in range(SEEDS):
        tree = problem.start(seed)
        parts = [*jax.tree.leaves(tree["trunk"]), *jax.tree.leaves(tree["heads"])]
        rows.append(np.concatenate([x.ravel() for x in parts]))
    return np.stack(rows)


def own(trunk=1.0, apart=(0.0, 0.0), heads=(0.0, 0.0)):
    """A way of norm `trunk` and of norm 1 in the heads, and what is apart at x10, x8.

    All other scales go as scale 1.
    """
    path = np.repeat(starts()[None, None], len(rule.SCALES), axis=1)  # one record
    path[..., 0] += trunk
    path[..., TRUNK] += 1
    for scale, in_trunk, in_heads in zip((10, rule.EXACT), apart, heads, strict=True):
        path[:, rule.SCALES.index(scale), :, 1] += in_trunk
        path[:, rule.SCALES.index(scale), :, TRUNK + 1] += in_heads
    return Own(path)


def test_the_toy_in_numpy():
    params, x = problem.start(3), np.linspace(-1, 1, 7)
    leaky = lambda z: np.where(z > 0, z, 0.01 * z)  # noqa: E731
    features = x[:, None]
    for layer in params["trunk"]:
        features = leaky(features @ layer["w"] + layer["b"])
    expected = []
    for task, curve in zip(problem.TASKS, problem.curves(x).T, strict=True):
        first, last = params["heads"][task]
        answer = leaky(features @ first["w"] + first["b"]) @ last["w"] + last["b"]
        expected.append(np.abs(answer[:, 0] - curve).mean())
    found = problem.losses(params, (x, problem.curves(x)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert starts().shape == (SEEDS, TRUNK + 882)


def test_departures_are_relative_to_the_way_of_scale_one():
    found = rule.departures(own(2.0, apart=(0.5, 3.0), heads=(0.25, 0.0)), rule.PAPERS)
    np.testing.assert_allclose(found["trunk"], [[0.25] * SEEDS])
    np.testing.assert_allclose(found["heads"], [[0.25] * SEEDS])
    exact = rule.departures(own(2.0, apart=(0.5, 3.0)), (rule.EXACT,))
    np.testing.assert_allclose(exact["trunk"], [[1.5] * SEEDS])
    frozen = rule.departures(own(0.0), rule.PAPERS)
    np.testing.assert_array_equal(frozen["trunk"], 0)
    only = rule.departures(own(0.0, apart=(1.0, 0.0)), rule.PAPERS)
    assert np.isinf(only["trunk"]).all()


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, rule.INVARIANT),
        ({"apart": (0.5, 0.0), "heads": (0.5, 0.0)}, rule.INVARIANT),  # rounding grew
        ({"trunk": 0.0}, rule.HEADS),  # it is frozen
        ({"apart": (0.0, 0.5)}, rule.HEADS),
        ({"heads": (0.0, 0.5)}, rule.NEITHER),
        ({"heads": (0.0, np.nan)}, rule.NEITHER),
    ],
)
def test_words(given, word):
    results = {"arm": own(**given)}
    found = rule.judge(results, problem.TASKS)
    assert found.verdicts == {"arm": word}
    assert ("arm" in found.statement) == (word == rule.INVARIANT)


def test_the_claim_holds_and_fails_with_what_was_measured():
    settings = namedtuple("Settings", "seeds")(SEEDS)
    apart = {"apart": (0.5, 0.5), "heads": (0.5, 0.5)}
    methods = {
        arm: own(**({} if "per_task" in arm or "uw_o" in arm else apart))
        for arm in ARMS
    }
    methods["adam_frozen"] = own(trunk=0.0)
    said = claim.measured(Result(methods, settings))
    assert len(said) == len(claim.ASKED)
    assert claims.verdict(said) == claims.HOLDS
    methods["adam_per_task"] = own(heads=(0.5, 0.0))
    said = claim.measured(Result(methods, settings))
    assert claims.verdict(said) == claims.NOT_HERE
    assert len(claim.measured(Result({"adam": own()}, settings))) == 1


def test_the_table_and_the_file():
    result = Result(
        {"adam": own(2.0, apart=(0.5, 0.0))}, namedtuple("Settings", "seeds")(SEEDS)
    )
    assert report.table(result).rows[0] == [
        *("adam", "trunk", "2.5e-01", "0.0e+00", "0.0e+00", "0.0e+00")
    ]
    table = report.files(result)["departures.csv"]
    assert len(table) == 2 * 4 * SEEDS
    assert table["departure"][0] == "0.25"


def test_scales_are_the_papers_and_a_power_of_two():
    part = STUDY.parts[0]
    assert part.scales == (1, 10, 0.1, 0.01, 8)
    assert set(ARMS) == set(part.settings.methods)
