"""The study of corrupted images: its halves, delta and its sign, the claim."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.studies.corruptions import claim, problem, report, rule
from benchmarks.studies.corruptions.arms import in_halves
from benchmarks.studies.corruptions.problem import Examples, State, Training
from mtl_optax.study.data.corruptions import CORRUPTIONS, SEVERITIES
from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.report import claims

Own = namedtuple("Own", "metrics chosen")
Result = namedtuple("Result", "methods tasks")
SEEDS, TASK_NAMES = 3, tuple(TASKS)


def own(clean, retuned):
    """With these accuracies `[seeds, T]` at each corruption and severity."""
    shape = (1, 1, SEEDS, len(TASKS))
    both = {
        "accuracy": np.broadcast_to(clean, shape),
        "retuned": np.broadcast_to(retuned, shape),
    }
    names = [problem.at(n, s) for n in CORRUPTIONS for s in SEVERITIES]
    return Own(dict.fromkeys(["test", *names], both), np.array([0]))


def batch(number=6):
    rng = np.random.default_rng(0)
    images = rng.integers(
        256, size=(number, 2 + problem.VERSIONS, 32**2), dtype=np.uint8
    )
    labels = rng.integers(2, size=(number, len(TASKS))).astype(np.int32)
    return Training(images[:, 0], images[:, 2:], labels)


def test_clean_images_first_then_others():
    (params, state), given = problem.init(0), batch()
    moved = jax.tree.map(lambda x: x + 1.0, params)
    same = given._replace(corrupted=np.repeat(given.clean[:, None], 3, axis=1))
    rates = []

    def first(params, given, progress):
        losses, after = problem.losses(
            *(params, state, given), Now(progress, jax.random.key(1))
        )
        return sum(losses), (losses, after)

    run = jax.jit(jax.grad(first, has_aux=True))
    for progress in (0.0, 0.25, 0.5, 0.75):
        slope, (losses, after) = run(moved, given, progress)
        clean, _ = run(moved, same, progress)[1]
        assert np.allclose(losses, clean) == (progress < 0.5)
        # At 0.5 the parameters are those that the first half has left.
        kept = moved if progress <= 0.5 else params
        for leaf, expected in zip(
            *map(jax.tree.leaves, (after.kept, kept)), strict=True
        ):
            np.testing.assert_array_equal(leaf, expected)
        # After it the trunk is what was kept, and has no gradient.
        trunk = [bool(x.any()) for x in jax.tree.leaves(slope["trunk"])]
        assert any(trunk) == (progress <= 0.5)
        assert all(bool(x.any()) for x in jax.tree.leaves(slope["heads"]))
        rates.append(float(after.rate))
    np.testing.assert_allclose(rates, [1, 0.5, 1, 0.5], atol=1e-6)


def test_the_rate_is_that_of_the_problem():
    params = {"trunk": jnp.zeros(2), "heads": {"a": jnp.zeros(2)}}
    tx = in_halves(lambda of: optax.sgd(0.1))(None)
    grads, statistics = jax.tree.map(jnp.ones_like, params), State((), jnp.asarray(0.5))
    updates, _ = tx.update(grads, tx.init(params), params, statistics=statistics)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.05)


def test_evaluated_with_both_heads_in_numpy():
    params, state = problem.init(0)
    other = jax.tree.map(lambda x: -x, params["heads"])
    split = Examples(batch(50).clean, batch(50).labels)
    found = problem.evaluate({**params, "heads": other}, state, split, None)
    x = split.images / 255
    for layer in params["trunk"]:
        x = np.maximum(x @ np.asarray(layer["w"]) + np.asarray(layer["b"]), 0)
    for name, sign in (("accuracy", 1), ("retuned", -1)):
        answers = [
            np.argmax(sign * x @ np.asarray(params["heads"][task]["w"]), axis=1)
            for task in TASKS
        ]
        right = 100 * (np.stack(answers, axis=1) == split.labels).mean(axis=0)
        np.testing.assert_allclose(found[name], right, atol=2.1)  # an image of 50


def test_delta_is_the_loss_of_the_joint_one_minus_that_of_the_single():
    single = own(clean=80.0, retuned=40.0)  # keeps half
    joint = own(clean=90.0, retuned=54.0)  # keeps 60 %
    found = rule.delta(joint, single)
    shape = (len(CORRUPTIONS), len(SEVERITIES), SEEDS, len(TASKS))
    assert found.shape == shape
    np.testing.assert_allclose(found, -10)


@pytest.mark.parametrize(
    ("retuned", "word", "verdict"),
    [
        (60.0, rule.MORE, claims.HOLDS),
        (30.0, rule.LESS, claims.NOT_HERE),
        (40.0, rule.OPEN, claims.OPEN),
    ],
)
def test_words_and_the_verdict(retuned, word, verdict):
    noise = np.array([-1.0, 0.0, 1.0])[:, None]
    results = {
        "unitary": own(80.0, retuned + noise),
        "single_task": own(80.0, 40.0),
    }
    found = rule.judge(results, TASK_NAMES)
    assert found.verdicts == {"unitary": word, "single_task": "reference"}
    assert word in found.statement
    said = claim.measured(Result(results, TASK_NAMES))
    assert claims.verdict(said) == verdict
    assert said[0].estimate == pytest.approx(100 * (40 - retuned) / 80)


def test_without_single_tasks_nothing_is_said():
    results = {"unitary": own(80.0, 40.0)}
    assert rule.judge(results, TASK_NAMES).verdicts == {"unitary": rule.UNKNOWN}
    result = Result(results, TASK_NAMES)
    assert claim.measured(result) == []
    assert report.by_family(result) is None
    assert report.files(result) == {}
    assert report.transfer(result) is None


def test_tables_and_the_file():
    noise = np.arange(SEEDS * len(TASKS)).reshape(SEEDS, -1) / 10
    results = {"unitary": own(80.0, 40.0 + noise), "single_task": own(80.0, 40.0)}
    result = Result(results, TASK_NAMES)
    table = report.by_family(result)
    families = ["noise", "blur", "weather", "digital", "all"]
    assert [row[0] for row in table.rows] == families
    assert table.rows[0][1].startswith("-0.50 [")
    rows = report.accuracy_by_family(result).rows
    assert rows[0] == ["unitary", "clean", "accuracy", *["80.0"] * 4]
    assert rows[3][:4] == ["unitary", "noise", "retuned", "40.4"]
    file = report.files(result)["delta.csv"]
    assert len(file) == len(CORRUPTIONS) * len(SEVERITIES) * len(TASKS)
    assert file["delta"][0] == "-0.500"
    drawn = report.transfer(result)
    titles = [ax.get_title() for ax in drawn.figure.axes]
    assert titles == list(TASK_NAMES)
