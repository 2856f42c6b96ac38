"""The study command: its data, its one runner, its verdicts, and what it writes."""

import csv
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import mtl_optax
from mtl_optax.analysis import comparison
from mtl_optax.study import (
    asking,
    cli,
    compare,
    data,
    intervals,
    methods,
    report,
    results_files,
    runner,
    starts,
    studies,
    styles,
)
from mtl_optax.study.figures import frame
from mtl_optax.study.model import digits_problem
from mtl_optax.study.outcome import choose
from mtl_optax.study.priority_methods import OF_CHANNELS
from mtl_optax.study.problem import Problem
from mtl_optax.study.programs import Recipe
from mtl_optax.study.settings import Settings
from mtl_optax.study.shares import shares
from mtl_optax.study.verdicts import null, paired, stress, transfer

ROOT = Path(__file__).resolve().parents[1]
TINY = Settings(("unitary", methods.SINGLE_TASK), seeds=2, steps=2)


@pytest.fixture(scope="module")
def results():
    return compare.run(studies.STRESS, TINY)


# --- Data -----------------------------------------------------------------------------


def test_scans_are_split_before_composing():
    parts = data.split_scans(np.random.default_rng(0))
    assert {name: len(part) for name, part in parts.items()} == data.NUM_SCANS
    for one, other in combinations(parts.values(), 2):
        assert not set(one) & set(other)
    assert set(np.concatenate(list(parts.values()))) == set(range(1797))


def test_images_hold_scans_of_their_own_split_only():
    scans = load_digits().data.reshape(-1, 8, 8).astype(np.float32) / 16
    parts = data.split_scans(np.random.default_rng(0))
    for name, split in data.multi_digits(num_tasks=2).items():
        canvas = split.images.reshape(-1, 12, 12)
        assert len(canvas) == data.NUM_IMAGES[name]
        # Where the digits do not overlap the scan is seen as it is.
        for seen, own in [
            (canvas[:, :4, :8], scans[parts[name], :4]),
            (canvas[:, 8:, 4:], scans[parts[name], 4:]),
        ]:
            assert {x.tobytes() for x in seen} <= {x.tobytes() for x in own}


def test_composite_is_the_brighter_pixel_at_the_stated_places():
    rng = np.random.default_rng(1)
    left, right = rng.random((2, 5, 8, 8), dtype=np.float32)
    expected = np.zeros((5, 12, 12), np.float32)
    for n in range(5):
        for i in range(8):
            for j in range(8):
                expected[n, i, j] = max(expected[n, i, j], left[n, i, j])
                expected[n, i + 4, j + 4] = max(
                    expected[n, i + 4, j + 4], right[n, i, j]
                )
    np.testing.assert_array_equal(data.compose(left, right), expected)


def test_labels_answer_the_four_tasks():
    answers = data.labels(np.array([3, 4, 7]), np.array([5, 1, 7]))
    assert list(data.TASKS) == ["left", "right", "parity", "greater"]
    np.testing.assert_array_equal(answers, [[3, 5, 0, 0], [4, 1, 1, 1], [7, 7, 0, 0]])


# --- Model and methods ----------------------------------------------------------------


def test_only_the_trunk_is_shared():
    problem = digits_problem(4)
    params = jax.eval_shape(lambda: problem.init(0))
    mask = jax.tree_util.tree_leaves_with_path(problem.shared(params))
    shared = {jax.tree_util.keystr(path) for path, is_shared in mask if is_shared}
    assert len(mask) == 2 * 2 + 4 * 2
    assert len(shared) == 4
    assert all("trunk" in path for path in shared)
    assert not any("trunk" in jax.tree_util.keystr(p) for p, yes in mask if not yes)


def test_the_table_has_every_public_method_or_the_reason_why_not():
    public = {
        name
        for name in mtl_optax.__all__
        if ".from_" in getattr(getattr(mtl_optax, name), "__module__", "")
    }
    assert not set(methods.TABLE) & set(methods.LEFT_OUT)
    assert public <= set(methods.TABLE) | set(methods.LEFT_OUT)
    assert set(methods.LEFT_OUT) <= public
    assert all(methods.LEFT_OUT.values())
    assert methods.ALL not in methods.KNOWN


@pytest.mark.parametrize("name", [*methods.KNOWN, *OF_CHANNELS])
def test_every_known_method_trains(name):
    params = {"trunk": jnp.ones(3), "head": jnp.ones(2)}

    def losses_fn(params):
        trunk = jnp.sum(params["trunk"] ** 2)
        return trunk, trunk + jnp.sum(params["head"] ** 2)

    def step(seed, trained):
        tx = methods.transformation(
            *(name, two_leaves(), optax.sgd(0.1)),
            seed=seed,
            trained=trained,
            settings={},
        )
        losses, grads = mtl_optax.lazy_task_grads(losses_fn)(params)
        extra = asking.functions(losses_fn)
        return tx.update(grads, tx.init(params), params, losses=losses, **extra)[0]

    new = jax.eval_shape(step, jnp.int32(0), jnp.array([1.0, 0.0]))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, params)


def two_leaves():
    """Enough of a problem to build methods: a shared leaf, and a head of task 1."""
    return Problem(
        name="two leaves",
        tasks=("first", "second"),
        splits={},
        init=lambda seed: None,
        losses=lambda params, batch: (),
        metrics=(),
        evaluate=lambda params, split: {},
        owner=lambda params: {"trunk": None, "head": 1},
        strength_fn=lambda params, batch: {"trunk": jnp.ones((2, 3)), "head": None},
    )


# --- Looks ----------------------------------------------------------------------------


def test_methods_can_be_told_apart():
    listed = [*styles.FIRST, *styles.ORDER]
    assert len(set(listed)) == len(listed)
    assert set(methods.KNOWN) <= set(listed)
    looks = [(x.colour, x.marker, str(x.line)) for x in map(styles.style, listed)]
    assert len(set(looks)) == len(looks)
    assert len({look[0] for look in looks[: len(styles.FIRST)]}) == len(styles.FIRST)
    for name in listed[1:]:
        if name != methods.SINGLE_TASK:
            assert styles.style(name).colour not in ("#000000", "#7F7F7F")


def test_a_method_keeps_its_looks():
    assert styles.style("unitary").colour == "#000000"
    assert styles.style("cagrad") == ("#0072B2", "o", "solid")
    assert styles.style("famo") == ("#E69F00", "s", styles.DASHES[0])
    mine = styles.style("a_method_of_mine")
    assert mine == styles.style("a_method_of_mine")
    assert mine.marker in styles.GLYPHS


@pytest.mark.slow
def test_figures_of_many_methods(results, tmp_path):
    names = [*styles.FIRST, *styles.ORDER[:23]]
    outcome = results.outcomes["unitary"]
    many = results._replace(
        outcomes=dict.fromkeys(names, outcome),
        settings=TINY._replace(methods=tuple(names)),
    )
    captions = frame.save(tmp_path, many)
    drawn = [figure.__name__ for figure in studies.STRESS.figures]
    assert list(captions) == [f"{name}.png" for name in drawn]
    assert "A panel a method" in captions["losses.png"]
    for name in captions:
        width, height = png_size(tmp_path / name)
        assert width == 1350
        assert 1000 < height < 2000


def png_size(path):
    header = path.read_bytes()[16:24]
    return int.from_bytes(header[:4]), int.from_bytes(header[4:])


def test_single_task_leaves_the_other_head_alone():
    params = {"trunk": jnp.zeros(1), "head": jnp.zeros(1)}
    grads = {"trunk": jnp.array([[1.0], [2.0]]), "head": jnp.array([[0.0], [4.0]])}

    def moved(trained):
        tx = methods.transformation(
            *(methods.SINGLE_TASK, two_leaves(), optax.identity()),
            seed=0,
            trained=jnp.array(trained),
            settings={},
        )
        new, _ = tx.update(grads, tx.init(params), params)
        return float(new["trunk"][0]), float(new["head"][0])

    assert moved([1.0, 0.0]) == (1.0, 0.0)
    assert moved([0.0, 1.0]) == (2.0, 4.0)
    assert moved([1.0, 1.0]) == (3.0, 4.0)


# --- Runner ---------------------------------------------------------------------------


def test_batches_depend_on_the_seed_alone():
    first = starts.batch_indices(3, 4000, 7, 64)
    assert first.shape == (7, 64)
    assert first.min() >= 0
    assert first.max() < 4000
    np.testing.assert_array_equal(first, starts.batch_indices(3, 4000, 7, 64))
    assert (first != starts.batch_indices(4, 4000, 7, 64)).any()


def test_runs_of_a_seed_are_paired(results):
    first = [outcome.losses[0] for outcome in results.outcomes.values()]
    for losses in first:  # [scales, seeds, T]: same start, same first batch
        np.testing.assert_allclose(losses, first[0], rtol=1e-5)
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert (first[0][:, 0] != first[0][:, 1]).all()
    after = results.outcomes["unitary"].losses[1]
    assert (after[0] != after[1]).all()  # the scale has an effect


def test_runner_is_deterministic(results):
    alone = TINY._replace(methods=("unitary",))
    again = compare.run(studies.STRESS, alone).outcomes["unitary"]
    once = results.outcomes["unitary"]
    np.testing.assert_array_equal(again.losses, once.losses)
    np.testing.assert_array_equal(again.score, once.score)


def test_shares_start_as_the_methods_promise(results):
    unitary = results.outcomes["unitary"].shares[0]
    np.testing.assert_allclose(unitary[0], 0.5)
    np.testing.assert_allclose(unitary[1, :, 1], 1 / 1001, rtol=1e-5)
    assert np.isnan(results.outcomes[methods.SINGLE_TASK].shares).all()


def test_a_failing_method_stops_the_others():
    def tick(method, stage, done):
        raise RuntimeError(f"{method} broke")

    problem = digits_problem(2)
    names = ("unitary", "mean", "mgda")
    work = {name: compare.lanes(2, stress.SCALES, TINY, name) for name in names}
    with pytest.raises(RuntimeError, match="unitary broke"):
        runner.train_all(problem, work, Recipe(2), tick)


# --- Verdicts -------------------------------------------------------------------------

EQUAL = np.full((2, 3, 2), 0.5)
TURNED = np.stack([EQUAL[0], np.tile([0.6, 0.4], (3, 1))])
ALMOST = np.stack([EQUAL[0], np.tile([0.5009, 0.4991], (3, 1))])


@pytest.mark.parametrize(
    ("after", "first_shares", "expected"),
    [
        ((97, 60), TURNED, "dominated"),
        ((70, 97), TURNED, "over-corrects"),
        ((70, 60), TURNED, "fails"),
        ((70, 60), EQUAL, "fails"),
        ((96.8, 96.2), EQUAL, "invariant"),
        ((96.8, 96.2), ALMOST, "invariant"),
        ((96.8, 96.2), TURNED, "robust"),
        ((96.8, 96.2), EQUAL * np.nan, "robust"),
        ((95.01, 94.01), TURNED, "robust"),  # less than 2 points
        ((97, 93.99), TURNED, "dominated"),  # more than 2 points
        ((99, 99), TURNED, "robust"),  # a gain is no loss
    ],
)
def test_verdict(after, first_shares, expected):
    seeds = np.array([[-0.5], [0.0], [0.5]])
    accuracy = np.stack([seeds + np.array(x) for x in ((97.0, 96.0), after)])
    word = stress.verdict(accuracy, first_shares)
    assert word == expected
    text = stress.sentence("x", word, accuracy, ("left", "right"), 1000)
    assert text.startswith(f"x {'' if word in ('over-corrects', 'fails') else 'is '}")
    assert word in text


def test_sentence_gives_the_numbers():
    accuracy = np.stack([np.full((2, 2), 96.8), np.tile([77.1, 96.9], (2, 1))])
    text = stress.sentence("mgda", "over-corrects", accuracy, ("left", "right"), 1000)
    assert text == (
        "mgda over-corrects: left falls from 96.8 to 77.1 when its loss is multiplied "
        "by 1000."
    )


def test_shares_without_an_update_are_unknown():
    parts = shares(np.array([[0.0, 0.0], [1.0, 3.0]]), np.ones((2, 2)))
    assert np.isnan(parts[0]).all()
    np.testing.assert_allclose(parts[1], [0.25, 0.75])


def test_null_statement():
    base = np.array([[97.0, 96.0], [96.0, 97.0], [98.0, 95.0]])
    noisy = base + np.array([[0.3, 0.1], [-0.3, -0.1], [0.1, 0.0]])
    better = base + np.array([[0.1, 0.5], [-0.1, 0.6], [0.0, 0.4]])
    tasks = ("left", "right")
    same = null.statement({"unitary": base, "a": noisy}, tasks)
    assert same == (
        "At equal scales no method differs from unitary by more than 2 sd; the largest "
        "mean difference is 0.03 points. Intervals of 95 %, paired over 3 seeds, "
        "exclude 0 in 0 of 2 comparisons; by chance in about 0.1."
    )
    named = null.statement({"a": noisy, "b": better, "unitary": base}, tasks)
    assert "b on right (+0.50 ± 0.10 points); no other does." in named
    assert "0.3 of 4" in named
    assert "exclude 0 in 1 of 4 comparisons; by chance in about 0.2" in named
    for unable in [{"unitary": base}, {"a": base, "b": base}]:
        assert "no statement is possible" in null.statement(unable, tasks)
    one_seed = {"unitary": base[:1], "a": noisy[:1]}
    assert "no statement is possible" in null.statement(one_seed, tasks)


def test_chance_of_a_false_alarm():
    # Student's t of 1 degree of freedom beyond 2 sqrt(2): the Cauchy distribution.
    assert null.chance(2) == pytest.approx(2 / np.pi * np.arcsin(1 / 3), rel=1e-5)
    assert 1 / null.chance(5) == pytest.approx(90, abs=1)


LOST = np.array([[90.0, 80.0], [91.0, 80.0], [92.0, 80.0]])
ALONE = np.array([[90.0, 88.0], [91.0, 89.0], [92.0, 90.0]])


def test_transfer_names_what_is_lost_and_who_repairs_it():
    tasks = ("left", "parity")
    assert transfer.verdict(LOST - ALONE) == "negative transfer"
    assert transfer.verdict(ALONE - ALONE) == "no loss"
    text = transfer.sentence("a", "negative transfer", LOST, ALONE, tasks)
    # t of 2 degrees of freedom is 4.303; 4.303 / sqrt(3) = 2.48
    assert "left +0.00 [+0.00, +0.00], parity -9.00 [-11.5, -6.5] points" in text
    assert "Δp -5.05 [-6.31, -3.80] % (higher is better)" in text  # half of -9 / 89
    nobody = transfer.statement({"unitary": LOST, "a": LOST}, ALONE, tasks)
    assert "parity -9.00 [-11.5, -6.5] points" in nobody
    assert nobody.endswith("None of a removes it.")
    cured = transfer.statement({"unitary": LOST, "a": ALONE}, ALONE, tasks)
    assert cured.endswith("No task loses with a.")
    none = transfer.statement({"unitary": ALONE}, ALONE, tasks)
    assert none.startswith("No negative transfer")
    unable = transfer.statement({"unitary": ALONE}, None, tasks)
    assert unable.startswith("No statement is possible")


def test_null_verdict_is_about_paired_differences():
    assert null.verdict(np.array([[0.3], [-0.3], [0.1]])) == "no difference"
    assert null.verdict(np.array([[0.3], [0.3], [0.31]])) == "differs"
    assert null.verdict(np.array([[9.0]])) == "unknown"


def test_the_rate_is_chosen_on_the_mean_of_validation():
    validation = np.zeros((3, 2, 2, 2))  # rates, scales, seeds, tasks
    validation[1, 0] = [[50, 60], [50, 60]]
    validation[0, 0, 0, 0] = 100  # best in one seed and task only
    validation[2, 1] = validation[1, 1] = 7  # a tie
    np.testing.assert_array_equal(choose(validation), [1, 1])


def test_diverged_runs_are_named(results):
    outcome = results.outcomes["unitary"]
    assert compare._divergence(outcome) == ""
    losses = outcome.losses.copy()
    losses[-1, 1, 0, 0] = np.nan
    text = compare._divergence(outcome._replace(losses=losses))
    assert text == " 1 of its 4 runs diverged."


def test_the_rate_can_be_chosen_on_seeds_that_are_not_reported():
    """The runs reported are those without further seeds; these decide on the rate."""
    rates = (1e-4, 1e-2)
    settings = TINY._replace(steps=4, learning_rates=rates)
    plain = compare.run(studies.NULL, settings).outcomes
    tuned = compare.run(studies.NULL, settings._replace(tuning_seeds=2)).outcomes
    both = compare.run(studies.NULL, settings._replace(seeds=4)).outcomes
    for name, outcome in tuned.items():
        every, ours = both[name].metrics["val"]["accuracy"], plain[name].metrics
        np.testing.assert_array_equal(outcome.chosen, choose(every[:, :, 2:]))
        for split, named in outcome.metrics.items():
            np.testing.assert_array_equal(named["accuracy"], ours[split]["accuracy"])
        wanted = named["accuracy"][outcome.chosen[0], 0]
        np.testing.assert_array_equal(outcome.score[0], wanted)
        assert outcome.losses.shape == plain[name].losses.shape


def test_a_diverged_rate_is_not_chosen_and_losses_are_better_when_low():
    validation = np.array([np.nan, 3.0, 1.0, 2.0]).reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(choose(validation), [1])
    np.testing.assert_array_equal(choose(validation, False), [2])


def test_intervals_pair_the_runs_of_a_seed(results):
    intervals_of = intervals.against_baseline(results)
    assert list(intervals_of) == [methods.SINGLE_TASK]
    interval = intervals_of[methods.SINGLE_TASK]
    difference = (
        results.outcomes[methods.SINGLE_TASK].score - results.outcomes["unitary"].score
    )
    expected = comparison.paired_t(np.moveaxis(difference, 1, 0), np.zeros((2, 2, 2)))
    np.testing.assert_allclose(interval.low, expected.low)
    assert interval.mean.shape == (2, 2)  # scales, tasks
    assert paired.bracket(-0.123, 9.99) == "[-0.12, +9.99]"
    assert paired.bracket(-0.123, 10) == "[-0.1, +10.0]"
    rows = [
        dict(zip(intervals.COLUMNS, row, strict=True))
        for row in intervals.summary(results)
    ]
    assert [row["method"] for row in rows] == ["unitary"] * 4 + ["single_task"] * 4
    assert rows[0]["difference"] == rows[0]["baseline"] == ""
    assert float(rows[4]["t_low"]) == pytest.approx(interval.low[0, 0], abs=1e-4)
    assert float(rows[4]["bootstrap_low"]) >= float(rows[4]["t_low"])


# --- Report and command line ----------------------------------------------------------


class References(HTMLParser):
    """Everything that a page would load or link to."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in ("src", "href")]


def check_folder(folder, names, seeds):
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*results_files.COLUMNS, "accuracy")
    keys = {tuple(row[c] for c in results_files.COLUMNS) for row in rows}
    assert len(keys) == len(rows) == len(names) * 2 * seeds * 2 * 2
    assert {row["method"] for row in rows} == set(names)
    assert {row["scale"] for row in rows} == {"1", "1000"}
    assert {row["split"] for row in rows} == {"val", "test"}
    assert all(0 <= float(row["accuracy"]) <= 100 for row in rows)

    config = json.loads((folder / "config.json").read_text())
    assert config["versions"]["mtl_optax"] == mtl_optax.__version__
    assert config["versions"]["jax"] == jax.__version__
    assert config["seeds"] == list(range(seeds))
    for key in ("device", "steps", "learning_rates", "command"):
        assert config[key]

    compared = seeds > 1 and "unitary" in names and len(names) > 1
    # The share of a method whose weights do not tell it is not known.
    figures = {"accuracy", "losses"} | ({"differences"} if compared else set())
    figures |= (
        {"shares"} if set(names) - {"graddrop", "db_mtl", "single_task"} else set()
    )
    assert {path.stem for path in folder.glob("*.png")} == figures
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names) * 2 * 2
    assert {row["seeds"] for row in rows} == {str(seeds)}
    assert any(row["t_low"] for row in rows) == compared
    page = (folder / "report.html").read_text(encoding="utf-8")
    loaded = References(page)
    assert len(loaded.found) == len(figures)
    assert all(value.startswith("data:image/png;base64,") for value in loaded.found)
    assert not loaded.tags & {"script", "link", "iframe"}
    assert not re.search(r"url\(|@import", page)
    assert "Alpaydin" in page
    assert "CC BY 4.0" in page


@pytest.mark.parametrize("seeds", [1, 2])
def test_report(results, tmp_path, seeds):
    if seeds == 1:
        outcomes = {
            name: outcome._replace(
                metrics=jax.tree.map(lambda v: v[:, :, :1], outcome.metrics),
                score=outcome.score[:, :1],
                losses=outcome.losses[:, :, :1],
                shares=outcome.shares[:, :, :1],
            )
            for name, outcome in results.outcomes.items()
        }
        settings = TINY._replace(seeds=1)
        results = results._replace(settings=settings, outcomes=outcomes)
    report.write(tmp_path / "a" / "b", results, "mtl-optax study", seconds=1.0)
    check_folder(tmp_path / "a" / "b", TINY.methods, seeds)


@pytest.mark.parametrize("name", ["null", "transfer"])
def test_other_studies_report_every_rate(name, tmp_path):
    study = studies.STUDIES[name]
    rates = (1e-9, 1e-2)
    settings = TINY._replace(steps=4, learning_rates=rates, optimizer="sgd", quick=True)
    results = compare.run(study, settings)
    for outcome in results.outcomes.values():
        at = outcome.chosen[0]
        scores = outcome.metrics["val"]["accuracy"][:, 0].mean(axis=(1, 2))
        assert scores[at] == scores.max()
        np.testing.assert_array_equal(
            outcome.score[0], outcome.metrics["test"]["accuracy"][at, 0]
        )
    report.write(tmp_path, results, "mtl-optax study", seconds=1.0)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    num_tasks = len(results.tasks)
    assert len(rows) == 2 * 2 * 2 * 2 * num_tasks
    assert {row["learning_rate"] for row in rows} == {"1e-09", "0.01"}
    for method in TINY.methods:
        chosen = [r for r in rows if r["method"] == method and r["chosen"] == "1"]
        assert len({row["learning_rate"] for row in chosen}) == 1
        assert len(chosen) == 2 * 2 * num_tasks
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(References(page).found) == len(study.figures)
    assert "best validation accuracy" in page
    assert "chosen rate" in page
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["study"] == name
    assert config["optimizer"] == "sgd"


def test_studies_are_listed(capsys):
    assert {*cli.STUDIES} == {*studies.STUDIES}
    assert cli.main(["study", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(cli.STUDIES)


def test_unknown_method(capsys):
    assert cli.main(["study", "--methods", "mgda,pcgard"]) == 2
    error = capsys.readouterr().err
    assert "unknown method 'pcgard'; known: unitary, " in error
    assert all(name in error for name in methods.KNOWN)


def test_missing_extra(capsys, monkeypatch):
    find_spec = cli.importlib.util.find_spec
    monkeypatch.setattr(
        cli.importlib.util,
        "find_spec",
        lambda name: None if name == "sklearn" else find_spec(name),
    )
    assert cli.main(["study"]) == 2
    error = capsys.readouterr().err
    assert 'scikit-learn is missing; run: pip install "mtl-optax[study]"' in error


def test_version_and_usage(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtl-optax {mtl_optax.__version__}\n"
    assert cli.main([]) == 2
    assert "study" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seeds", "0"],
        ["--steps", "x"],
        ["--lr", "-1"],
        ["--lr", "nan"],
        ["--lr", "1,-1"],
        ["nothing"],
    ],
)
def test_wrong_options(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["study", *wrong])
    assert stopped.value.code == 2
    assert wrong[-1] in capsys.readouterr().err


def study(folder, *options):
    command = [sys.executable, "-W", "error", "-m", "mtl_optax.study.cli", "study"]
    done = subprocess.run(
        [*command, "--out", str(folder), *options],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_NUMPY_RANK_PROMOTION": "raise",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_quick_study_end_to_end(tmp_path):
    out = " ".join(study(tmp_path, "--quick").split())
    check_folder(tmp_path, studies.STRESS.quick.methods, seeds=2)
    assert "smoke run" in out
    assert "unitary is dominated" in out
    assert "mgda over-corrects" in out
    assert "imtl_g is invariant" in out
    assert "At equal scales" in out
    assert "smoke run" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_methods_whose_weights_tell_no_shares(tmp_path):
    names = ["graddrop", "db_mtl"]
    methods = ",".join(names)
    out = study(tmp_path, "--methods", methods, "--seeds", "1", "--steps", "3")
    check_folder(tmp_path, names, seeds=1)
    assert "no statement is possible" in " ".join(out.split())
