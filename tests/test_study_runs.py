"""Runs of a study: paired by seed, judged, compared, drawn and reported."""

import csv
import json

import jax
import numpy as np
import pytest
from study_folder import TINY, References, check_folder, write

from mtl_optax.analysis import comparison
from mtl_optax.study import studies
from mtl_optax.study.data.classification import digits_problem
from mtl_optax.study.engine import blocks, methods, run, tidy, train
from mtl_optax.study.engine.outcome import choose
from mtl_optax.study.engine.problem import batch_indices
from mtl_optax.study.engine.program import Recipe
from mtl_optax.study.report import document, paired, styles, summaries
from mtl_optax.study.report import scale_rule as stress

PARTS = {name: studies.load(name).parts[0] for name in ("stress", "null", "transfer")}


@pytest.fixture(scope="module")
def results():
    return run.run(PARTS["stress"], TINY)


def test_batches_depend_on_the_seed_alone():
    first = batch_indices(3, 4000, 7, 64)
    assert first.shape == (7, 64)
    assert first.min() >= 0
    assert first.max() < 4000
    np.testing.assert_array_equal(first, batch_indices(3, 4000, 7, 64))
    assert (first != batch_indices(4, 4000, 7, 64)).any()


@pytest.mark.slow
def test_runs_of_a_seed_are_paired(results):
    first = [outcome.losses[0] for outcome in results.methods.values()]
    for losses in first:  # [scales, seeds, T]: same start, same first batch
        np.testing.assert_allclose(losses, first[0], rtol=1e-5)
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert (first[0][:, 0] != first[0][:, 1]).all()
    after = results.methods["unitary"].losses[1]
    assert (after[0] != after[1]).all()  # the scale has an effect


@pytest.mark.slow
def test_runner_is_deterministic(results):
    alone = TINY._replace(methods=("unitary",))
    again = run.run(PARTS["stress"], alone).methods["unitary"]
    once = results.methods["unitary"]
    np.testing.assert_array_equal(again.losses, once.losses)
    np.testing.assert_array_equal(again.score, once.score)


def test_shares_start_as_the_methods_promise(results):
    unitary = results.methods["unitary"].shares[0]
    np.testing.assert_allclose(unitary[0], 0.5)
    np.testing.assert_allclose(unitary[1, :, 1], 1 / 1001, rtol=1e-5)
    assert np.isnan(results.methods[methods.SINGLE_TASK].shares).all()


def test_a_failing_method_stops_the_others():
    def tick(method, stage, done):
        raise RuntimeError(f"{method} broke")

    problem = digits_problem(2)
    names = ("unitary", "mean", "mgda")
    work = {
        name: train.Work(
            *(problem, methods.METHODS[name]),
            blocks.lanes(2, stress.SCALES, TINY, name),
        )
        for name in names
    }
    with pytest.raises(RuntimeError, match="unitary broke"):
        train.train_all(work, Recipe(2), tick)


def test_diverged_runs_are_named(results):
    outcome = results.methods["unitary"]
    assert run.divergence(outcome) == ""
    losses = outcome.losses.copy()
    losses[-1, 1, 0, 0] = np.nan
    text = run.divergence(outcome._replace(losses=losses))
    assert text == " 1 of its 4 runs diverged."


@pytest.mark.slow
def test_the_rate_can_be_chosen_on_seeds_that_are_not_reported():
    """The runs reported are those without further seeds; these decide on the rate."""
    rates = (1e-4, 1e-2)
    settings = TINY._replace(steps=4, learning_rates=rates)
    plain = run.run(PARTS["null"], settings).methods
    tuned = run.run(PARTS["null"], settings._replace(tuning_seeds=2)).methods
    both = run.run(PARTS["null"], settings._replace(seeds=4)).methods
    for name, outcome in tuned.items():
        every, ours = both[name].metrics["val"]["accuracy"], plain[name].metrics
        np.testing.assert_array_equal(outcome.chosen, choose(every[:, :, 2:]))
        for split, named in outcome.metrics.items():
            np.testing.assert_array_equal(named["accuracy"], ours[split]["accuracy"])
        wanted = named["accuracy"][outcome.chosen[0], 0]
        np.testing.assert_array_equal(outcome.score[0], wanted)
        assert outcome.losses.shape == plain[name].losses.shape


def test_intervals_pair_the_runs_of_a_seed(results):
    intervals_of = paired.against_baseline(results)
    assert list(intervals_of) == [methods.SINGLE_TASK]
    interval = intervals_of[methods.SINGLE_TASK]
    difference = (
        results.methods[methods.SINGLE_TASK].score - results.methods["unitary"].score
    )
    expected = comparison.paired_t(np.moveaxis(difference, 1, 0), np.zeros((2, 2, 2)))
    np.testing.assert_allclose(interval.low, expected.low)
    assert interval.mean.shape == (2, 2)  # scales, tasks
    assert paired.bracket(-0.123, 9.99) == "[-0.12, +9.99]"
    assert paired.bracket(-0.123, 10) == "[-0.1, +10.0]"
    rows = summaries.summary([results]).to_dict("records")
    assert [row["method"] for row in rows] == ["unitary"] * 4 + ["single_task"] * 4
    assert np.isnan(rows[0]["difference"])
    assert rows[0]["baseline"] == ""
    assert rows[4]["baseline"] == "unitary"
    assert rows[4]["t_low"] == pytest.approx(interval.low[0, 0], abs=1e-4)
    assert rows[4]["bootstrap_low"] >= rows[4]["t_low"]
    assert rows[4]["mean"] == pytest.approx(
        results.methods["single_task"].score[0, :, 0].mean()
    )


def test_the_tidy_table_has_a_row_a_number(results):
    table = tidy.of_part(results)
    assert tuple(table) == tidy.COLUMNS
    assert len(table) == 2 * 2 * 2 * 2 * 2  # methods, scales, seeds, tasks, splits
    assert table["chosen"].all()  # one candidate
    at = (table["scale"] == 1000) & (table["seed"] == 1) & (table["task"] == "right")
    own = table[at & (table["method"] == "unitary") & (table["split"] == "test")]
    assert own["value"].tolist() == [results.methods["unitary"].score[1, 1, 1]]


@pytest.mark.slow
def test_figures_of_many_methods(results):
    names = list(dict.fromkeys([*styles.FIRST, *methods.TABLE]))
    outcome = results.methods["unitary"]
    many = results._replace(
        methods=dict.fromkeys(names, outcome),
        settings=TINY._replace(methods=tuple(names)),
    )
    draws = PARTS["stress"].figures
    figures = document.figures(draws, many)
    assert [x.name for x in figures] == [draw.__name__ for draw in draws]
    assert "A panel a method" in figures[-1].caption
    for figure in figures:
        width, height = png_size(figure.png)
        assert width == 1350
        assert 1000 < height < 50 * len(names)


def png_size(png):
    header = png[16:24]
    return int.from_bytes(header[:4]), int.from_bytes(header[4:])


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.slow
def test_report(results, tmp_path, seeds):
    if seeds == 1:
        ours = {
            name: outcome._replace(
                metrics=jax.tree.map(lambda v: v[:, :, :1], outcome.metrics),
                score=outcome.score[:, :1],
                losses=outcome.losses[:, :, :1],
                shares=outcome.shares[:, :, :1],
            )
            for name, outcome in results.methods.items()
        }
        settings = TINY._replace(seeds=1)
        results = results._replace(settings=settings, methods=ours)
    write(tmp_path / "a" / "b", results)
    check_folder(tmp_path / "a" / "b", TINY.methods, seeds)


@pytest.mark.parametrize("name", ["null", "transfer"])
@pytest.mark.slow
def test_other_studies_report_every_rate(name, tmp_path):
    part = PARTS[name]
    rates = (1e-9, 1e-2)
    settings = TINY._replace(steps=4, learning_rates=rates, optimizer="sgd", quick=True)
    results = run.run(part, settings)
    for outcome in results.methods.values():
        at = outcome.chosen[0]
        scores = outcome.metrics["val"]["accuracy"][:, 0].mean(axis=(1, 2))
        assert scores[at] == scores.max()
        np.testing.assert_array_equal(
            outcome.score[0], outcome.metrics["test"]["accuracy"][at, 0]
        )
    write(tmp_path, results)
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
    assert len(References(page).found) == len(part.figures)
    assert "best validation accuracy" in page
    assert '<th class="text">chosen</th>' in page or "<th>chosen</th>" in page
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["study"] == name
    assert config["optimizer"] == "sgd"
