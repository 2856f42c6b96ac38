"""The study of flat minima: its data, what it counts, and what it writes."""

import csv
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl
from mtl_optax.study import cli, damaged, data, flat, pairs
from mtl_optax.study.programs import Lanes, Recipe, programs
from mtl_optax.study.verdicts import flat as verdicts

CLAIMS = verdicts.CLAIMS
problem_of = cache(damaged.damaged_digits)


def one_lane(steps):
    one = np.ones((1, 2))
    return Lanes(np.zeros(1, np.int32), np.array([0.01]), one, one, {})


# --- Data -----------------------------------------------------------------------------


def test_shares_of_wrong_and_known_labels_are_exact_and_nested():
    true = data.multi_digits(2)["train"]
    wrong, known = {}, {}
    for name, (noise, fraction) in flat.CONDITIONS.items():
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
    true = data.multi_digits(2)
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
    params = problem.init(0)
    batch = jax.tree.map(lambda x: x[:8], problem.splits["train"])
    known = batch.known.copy()
    known[[0, 2, 3, 5, 7], 0] = False
    few = jax.tree.map(lambda x: x[~np.isin(range(8), (0, 2, 3, 5, 7))], batch)
    losses = problem.losses(params, batch._replace(known=known))
    np.testing.assert_allclose(losses[0], problem.losses(params, few)[0], rtol=1e-5)
    np.testing.assert_allclose(losses[1], problem.losses(params, batch)[1], rtol=1e-6)


@pytest.mark.slow
def test_without_labels_a_task_has_no_effect():
    """MGDA would stop at a zero gradient; of an inactive task it takes no notice."""
    problem = problem_of(0, 0.0)
    recipe, start = Recipe(steps=2, schedule="constant"), problem.init(0)
    params = jax.tree.map(lambda x: x[None], start)
    lanes = one_lane(2)
    init, advance = programs(problem, "mgda", recipe)
    batches = np.arange(2 * 64, dtype=np.int32).reshape(2, 1, 64)
    ended, _, record = jax.jit(advance, static_argnums=5)(
        *(params, init(params, lanes), batches),
        *(jax.tree.map(jnp.asarray, problem.splits["train"]), lanes, 2),
    )
    assert (np.asarray(record.losses)[:, 0, 0] == 0).all()
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
        params = jax.tree.map(lambda x: x[None], problem.init(0))
        init, advance = programs(problem, "f_mean", Recipe(steps=1))
        state = jax.eval_shape(init, params, one_lane(1))
        batches = np.zeros((1, 1, 64), np.int32)
        lowered = jax.jit(advance, static_argnums=5).lower(
            params, state, batches, problem.splits["train"], one_lane(1), 1
        )
        return lowered.as_text()

    assert text(0, 1) == text(0, 0.05)


@pytest.mark.slow
def test_sharpness_is_that_of_the_training_loss_of_each_task():
    problem = problem_of(0, 1)
    params, split = problem.init(0), problem.splits["fit"]
    found = jax.jit(problem.evaluate)(params, split)
    assert {x.name for x in problem.metrics} == set(found)
    _, grads = mtl.task_grads(lambda p: problem.losses(p, split))(params)
    # At the start losses are nearly linear within so small a ball.
    for t in range(2):
        slope = np.sqrt(sum(np.sum(x[t] ** 2) for x in jax.tree.leaves(grads)))
        rise = found["sharpness"][t] / 1000
        assert damaged.RADIUS * slope < rise < 1.3 * damaged.RADIUS * slope
        assert 0 <= found["ece"][t] <= 100


# --- Counting -------------------------------------------------------------------------


def test_tally_counts_both_sides():
    difference = np.zeros((2, 5, 2))
    difference[0, :, 0] = [1, 1.1, 0.9, 1, 1]  # surely above
    difference[0, :, 1] = [-2, -2.1, -1.9, -2, -2]  # surely below
    difference[1, :, 0] = [3, -2, 3, -2, 0]  # above, not surely
    difference[1, :, 1] = [-3, 2, -3, 2, -0.5]  # below, not surely
    up, down = verdicts.tally(difference, +1), verdicts.tally(difference, -1)
    assert up[:4] == (2, 1, 1, 4)
    assert down[:4] == (2, 1, 1, 4)
    np.testing.assert_allclose(up.of_seed, difference.mean(axis=(0, 2)))
    assert verdicts.cells(up, "accuracy")[:2] == ["2 of 4", "1 / 1"]
    shifted = difference + 5
    assert verdicts.tally(shifted, +1).word == "met"
    assert verdicts.tally(shifted, -1).word == "opposite"
    assert verdicts.tally(shifted - difference.mean() - 5, +1).word == "open"
    assert verdicts.tally(shifted[:, :1], +1)[1:3] == (0, 0)
    assert verdicts.tally(shifted[:, :1], +1).word == "open"


def test_sentences_say_what_was_counted():
    along = np.full((1, 2, 1), 1.0)
    found = {m: verdicts.tally(along * c.sign, c.sign) for m, c in CLAIMS.items()}
    text = verdicts.sentence("f_mean", "mean", found)
    assert "test accuracy higher in 1 of 1 (intervals say so in 1" in text
    assert "sharpness lower in 1 of 1" in text
    assert text.count("met") == 3
    other = {m: verdicts.tally(-along * c.sign, c.sign) for m, c in CLAIMS.items()}
    text = verdicts.beyond_sam({"f_mean": found, "f_mgda": other})
    assert text.count("better with f_mean, worse with f_mgda") == 3
    assert "minus joint SAM: test accuracy +1.00 [+1.00, +1.00] points" in text
    assert "no F- method" in verdicts.beyond_sam({})


def test_pairs():
    assert pairs.against_plain(("mgda", "f_mgda", "f_mean", "sam")) == [
        ("f_mgda", "mgda")
    ]
    assert pairs.against_sam(("mean", "f_mean", "sam")) == [("f_mean", "sam")]
    assert pairs.against_sam(("mean", "f_mean")) == []


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
    with open(tmp_path / "summary.csv", newline="") as file:
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
