"""The study of flat minima: its data, what it counts, and what it writes."""

import csv
import json
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl
from benchmarks.studies.flat import pairs, rule, study
from mtl_optax.study.command import cli
from mtl_optax.study.data import damaged
from mtl_optax.study.data.digits import multi_digits
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.problem import Now
from mtl_optax.study.engine.program import Carry, Lanes, Recipe, programs

CLAIMS = rule.CLAIMS
NOW = Now(0.0, jax.random.key(0))
problem_of = cache(damaged.damaged_digits)


def one_lane(steps):
    one = np.ones((1, 2))
    return Lanes(np.zeros(1, np.int32), np.array([0.01]), one, one, {})


# --- Data -----------------------------------------------------------------------------


def test_shares_of_wrong_and_known_labels_are_exact_and_nested():
    true = multi_digits(2)["train"]
    wrong, known = {}, {}
    for name, (noise, fraction) in study.CONDITIONS.items():
        split = damaged.damage(true, noise, fraction)
        changed = split.labels != true.labels
        assert changed[:, 0].mean() == pytest.approx(noise)
        assert split.known[:, 0].mean() == pytest.approx(fraction)
        assert not changed[:, 1].any()
        assert split.known[:, 1].all()
        assert set(np.unique(split.labels)) == set(range(10))
        wrong[name], known[name] = changed[:, 0], split.known[:, 0]
        labels = split.labels
        np.testing.assert_array_equal(
            labels, damaged.damage(true, noise, fraction).labels
        )
    assert (wrong["noise_20"] <= wrong["noise_40"]).all()
    assert (known["labels_5"] <= known["labels_10"]).all()
    assert (known["labels_10"] <= known["labels_20"]).all()


def test_only_training_data_are_damaged():
    true = multi_digits(2)
    splits = damaged.splits(noise=0.4, fraction=0.05)
    for name in ("val", "test"):
        np.testing.assert_array_equal(splits[name].labels, true[name].labels)
        assert splits[name].known.all()
    fit, train = splits["fit"], splits["train"]
    assert len(fit.images) == damaged.FIT
    # All 200 images with a label for left are among them, first.
    assert fit.known[:200, 0].all()
    assert fit.known[:, 0].sum() == train.known[:, 0].sum() == 200
    np.testing.assert_array_equal(fit.labels[:200], train.labels[train.known[:, 0]])


# --- Missing labels -------------------------------------------------------------------


def test_a_loss_is_the_mean_over_known_labels():
    problem = problem_of(0, 1)
    params, _ = problem.init(0)
    batch = jax.tree.map(lambda x: x[:8], problem.splits["train"])
    known = batch.known.copy()
    known[[0, 2, 3, 5, 7], 0] = False
    few = jax.tree.map(lambda x: x[~np.isin(range(8), (0, 2, 3, 5, 7))], batch)

    def losses_of(batch):
        return problem.losses(params, (), batch, NOW)[0]

    losses = losses_of(batch._replace(known=known))
    np.testing.assert_allclose(losses[0], losses_of(few)[0], rtol=1e-5)
    np.testing.assert_allclose(losses[1], losses_of(batch)[1], rtol=1e-6)


@pytest.mark.slow
def test_without_labels_a_task_has_no_effect():
    """MGDA would stop at a zero gradient; of an inactive task it takes no notice."""
    problem = problem_of(0, 0.0)
    recipe, (start, _) = Recipe(steps=2, schedule="constant"), problem.init(0)
    params = jax.tree.map(lambda x: x[None], start)
    lanes = one_lane(2)
    init, advance = programs(problem, METHODS["mgda"], recipe)
    batches = np.arange(2 * 64, dtype=np.int32).reshape(2, 1, 64)
    (ended, *_), log = jax.jit(advance, static_argnums=4)(
        *(Carry(params, (), init(params, lanes)), batches),
        *(jax.tree.map(jnp.asarray, problem.splits["train"]), lanes, 2),
    )
    assert (np.asarray(log.losses)[:, 0, 0] == 0).all()
    owner = jax.tree.leaves(problem.owner(start), is_leaf=lambda x: x is None)
    for task, before, after in zip(
        owner, jax.tree.leaves(start), jax.tree.leaves(ended), strict=True
    ):
        assert np.isfinite(after).all()
        assert (np.asarray(after[0]) == np.asarray(before)).all() == (task == 0)


@pytest.mark.slow
def test_all_conditions_are_one_program():
    """Else each of them would be compiled."""

    def text(noise, fraction):
        problem = problem_of(noise, fraction)
        params = jax.tree.map(lambda x: x[None], problem.init(0)[0])
        init, advance = programs(problem, METHODS["f_mean"], Recipe(steps=1))
        carry = Carry(params, (), jax.eval_shape(init, params, one_lane(1)))
        batches = np.zeros((1, 1, 64), np.int32)
        lowered = jax.jit(advance, static_argnums=4).lower(
            carry, batches, problem.splits["train"], one_lane(1), 1
        )
        return lowered.as_text()

    assert text(0, 1) == text(0, 0.05)


@pytest.mark.slow
def test_sharpness_is_that_of_the_training_loss_of_each_task():
    problem = problem_of(0, 1)
    (params, _), split = problem.init(0), problem.splits["fit"]
    found = jax.jit(problem.evaluate)(params, (), split, NOW.key)
    assert {x.name for x in problem.metrics} == set(found)
    _, grads = mtl.task_grads(lambda p: problem.losses(p, (), split, NOW)[0])(params)
    # At the start losses are nearly linear within so small a ball.
    for t in range(2):
        slope = np.sqrt(sum(np.sum(x[t] ** 2) for x in jax.tree.leaves(grads)))
        rise = found["sharpness"][t] / 1000
        assert damaged.RADIUS * slope < rise < 1.3 * damaged.RADIUS * slope
        assert 0 <= found["ece"][t] <= 100


# --- Counting -------------------------------------------------------------------------


def test_tally_counts_both_sides():
    difference = np.zeros((5, 4))  # seeds, comparisons
    difference[:, 0] = [1, 1.1, 0.9, 1, 1]  # surely above
    difference[:, 1] = [-2, -2.1, -1.9, -2, -2]  # surely below
    difference[:, 2] = [3, -2, 3, -2, 0]  # above, not surely
    difference[:, 3] = [-3, 2, -3, 2, -0.5]  # below, not surely
    up, down = rule.tally(difference, +1), rule.tally(difference, -1)
    assert up[:4] == (2, 1, 1, 4)
    assert down[:4] == (2, 1, 1, 4)
    np.testing.assert_allclose(up.of_seed, difference.mean(axis=1))
    shifted = difference + 5
    assert rule.tally(shifted, +1).word == "met"
    assert rule.tally(shifted, -1).word == "opposite"
    assert rule.tally(shifted - difference.mean() - 5, +1).word == "open"
    assert rule.tally(shifted[:1], +1)[1:3] == (0, 0)
    assert rule.tally(shifted[:1], +1).word == "open"


def test_sentences_say_what_was_counted():
    along = np.full((2, 1), 1.0)
    found = {m: rule.tally(along * c.sign, c.sign) for m, c in CLAIMS.items()}
    text = rule.sentence("f_mean", "mean", found)
    assert "test accuracy higher in 1 of 1 (intervals say so in 1" in text
    assert "sharpness lower in 1 of 1" in text
    assert text.count("met") == 3
    other = {m: rule.tally(-along * c.sign, c.sign) for m, c in CLAIMS.items()}
    text = rule.beyond_sam({"f_mean": found, "f_mgda": other})
    assert text.count("better with f_mean, worse with f_mgda") == 3
    assert "minus joint SAM: test accuracy +1.00 [+1.00, +1.00] points" in text
    assert "no F- or S- method" in rule.beyond_sam({})


def test_pairs():
    assert pairs.against_plain(("mgda", "f_mgda", "f_mean", "sam")) == [
        ("f_mgda", "mgda")
    ]
    assert pairs.against_sam(("mean", "f_mean", "sam")) == [("f_mean", "sam")]
    assert pairs.against_sam(("mean", "f_mean")) == []
    both = ("mean", "f_mean", "s_mean", "s_cagrad", "cagrad")
    assert pairs.against_flat(both) == [("s_mean", "f_mean")]
    assert pairs.against_plain(both)[1:] == [("s_mean", "mean"), ("s_cagrad", "cagrad")]


# --- Command line ---------------------------------------------------------------------


@pytest.mark.slow
def test_quick_run_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = ["study", "flat", "--quick", "--methods", "mean,cagrad,f_mean,sam"]
    assert cli.main([*command, "--steps", "4", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "…" not in out  # nothing is cut, however narrow the terminal
    assert max(len(x) for x in out.splitlines() if str(tmp_path) not in x) <= 80
    said = " ".join(out.split())
    assert "f_mean against mean: test accuracy higher in" in said
    assert "f_mean, which aggregates alike, minus joint SAM: test accuracy" in said
    # Of 2 conditions and 2 tasks: a count, intervals on both sides, the mean, a word.
    counts = (
        r"f_mean accuracy \d of 4 \d / \d [+-][\d.]+ \[.*?\] not lower (met|open|opp)"
    )
    assert re.search(counts, said)
    assert "smoke run" in said
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "Alpaydin" in page
    config = json.loads((tmp_path / "config.json").read_text())
    assert list(config["parts"]) == ["noise_40", "labels_10"]
    assert config["parts"]["noise_40"]["wrong_labels_of_left"] == 0.4
    with open(tmp_path / "differences.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 3 * 2  # conditions, pairs, metrics, tasks
    with open(tmp_path / "scores.csv", newline="") as file:
        scores = {
            (row["condition"], row["method"], row["metric"], row["task"]): row["mean"]
            for row in csv.DictReader(file)
        }
    for row in rows:
        key = row["metric"], row["task"]
        one, other = (
            float(scores[(row["condition"], row[who], *key)])
            for who in ("method", "other")
        )
        assert float(row["difference"]) == pytest.approx(one - other, abs=2e-4)
    for name in config["parts"]:
        assert (tmp_path / name / "report.html").exists()
