"""The study of the toy: its starts, its places, its paths, and what it leaves."""

import csv
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from mtl_optax.study.command import cli
from mtl_optax.study.engine.run import run
from mtl_optax.study.report import files, one, terminal
from mtl_optax.study.studies.toy import problem as toy
from mtl_optax.study.studies.toy import rule
from mtl_optax.study.studies.toy.study import STUDY

(PART,) = STUDY.parts


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "toy"
    settings = PART.settings._replace(methods=("mean", "pcgrad"), steps=450)
    ticks = []
    results = run(PART, settings, lambda *event: ticks.append(event))
    document = one.document(results, files.config(results, "mtl-optax study toy", 1.0))
    files.write(path, document)
    return path, results, ticks, document


@pytest.mark.slow
def test_toy_runs_in_float64_and_leaves_the_flag_alone(toy_folder):
    _, results, ticks, _ = toy_folder
    assert not jax.config.jax_enable_x64
    for method, out in results.methods.items():
        assert out.path.dtype == out.losses.dtype == np.float64
        assert out.path.shape == (225, 1, 8, 2)  # every second step
        path = np.concatenate([np.array(toy.STARTS)[None], out.path[:, 0]])
        moves = np.abs(np.diff(path, axis=0))
        assert 0 < moves.max() < 3e-3
        assert (method, "training", 450) in ticks
        np.testing.assert_allclose(
            out.score[0].mean(axis=-1), toy.mean_loss(rule.ends(out))
        )


def test_toy_values():
    near = toy.mean_loss(np.array([rule.MINIMUM, (0.01, -8.355), (3.0, 0.0)]))
    np.testing.assert_allclose(near, [-15.0916, -15.0916, 0], atol=1e-4)


def test_toy_starts_are_seeds():
    np.testing.assert_array_equal(toy.start(2), toy.STARTS[2])
    more = np.array([toy.start(seed) for seed in range(8, 40)])
    assert (np.abs(more) < toy.SIDE).all()
    assert len(np.unique(more)) == more.size
    np.testing.assert_array_equal(toy.start(8), more[0])


def test_toy_places():
    ends = np.array([(0.0, -8.36), (3.0, -8.37), (5.0, 2.0), (np.nan, np.nan)])
    places = rule.places(ends)
    assert places == ["minimum", "Pareto set", "elsewhere", "elsewhere"]
    assert rule.sentence("x", places[:3]) == (
        "x reaches the minimum of the mean loss from 1, stops elsewhere on the Pareto "
        "set from 1, does not arrive from 1 of 3 starts."
    )
    assert rule.sentence("x", places[:1]) == (
        "x reaches the minimum of the mean loss from 1 of 1 starts."
    )


@pytest.mark.slow
def test_toy_report(toy_folder, capsys):
    path, results, _, document = toy_folder
    with open(path / "ends.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 8
    head = ("method", "start_x", "start_y", "x", "y", "mean_loss", "distance", "place")
    assert tuple(rows[0]) == head
    with open(path / "metrics.csv", newline="") as file:
        metrics = list(csv.DictReader(file))
    assert len(metrics) == 2 * 8 * 2  # and tasks
    assert {row["split"] for row in metrics} == {"end"}
    mean = (float(metrics[0]["loss"]) + float(metrics[1]["loss"])) / 2
    assert mean == pytest.approx(float(rows[0]["mean_loss"]), abs=1e-4)
    config = files.config(results, "", 1.0)
    assert (config["study"], config["precision"]) == ("toy", "float64")
    assert (path / "toy.png").read_bytes().startswith(b"\x89PNG")
    page = (path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    assert results.judgement.sentences["mean"] in page
    assert "End points" in page
    terminal.show(Console(width=80), document)
    assert "mean does not arrive" in " ".join(capsys.readouterr().out.split())


def test_toy_on_the_command_line(tmp_path, capsys, monkeypatch):
    assert cli.main(["study", "toy", "--methods", "single_task"]) == 2
    assert "unknown method 'single_task'; known: unitary" in capsys.readouterr().err
    options = ["--methods", "mean", "--seeds", "9", "--steps", "20", "--no-cache"]
    rates = ["--lr", "0.1,0.001"]
    where = ["--out", str(tmp_path)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = jax.config.jax_enable_compilation_cache
    try:
        assert cli.main(["study", "toy", *options, *rates, *where]) == 0
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    out = capsys.readouterr().out
    assert "of 9 starts" in " ".join(out.split())
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = {row["learning_rate"] for row in rows if row["chosen"] == "1"}
    assert best == {"0.1"}  # it gets further in 20 steps
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "cache").exists()
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert not config["compilation_cache"]


@pytest.mark.slow
def test_cagrad_reaches_the_minimum_and_the_mean_does_not():
    settings = PART.settings._replace(methods=("mean", "cagrad"))
    results = run(PART, settings)
    found = {m: rule.places(rule.ends(out)) for m, out in results.methods.items()}
    assert found["cagrad"] == ["minimum"] * 8
    assert found["mean"] == ["elsewhere"] * 3 + ["minimum"] * 5
    assert "is reached by cagrad." in results.judgement.statement
