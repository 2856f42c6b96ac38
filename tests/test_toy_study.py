"""The study of the toy: its starts, its places, its paths, and what it leaves."""

import csv
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from mtl_optax.study.command import cli
from mtl_optax.study.data import toy
from mtl_optax.study.engine.run import run
from mtl_optax.study.report import claims, files, one, places, terminal
from mtl_optax.study.studies.toy import claim, rule
from mtl_optax.study.studies.toy.study import STUDY
from mtl_optax.study.studies.toy_tenth import claim as claim_of_tenth
from mtl_optax.study.studies.toy_tenth import report as report_of_tenth
from mtl_optax.study.studies.toy_tenth import rule as rule_of_tenth

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
            out.score[0].mean(axis=-1), toy.mean_loss(places.ends(out))
        )


def test_toy_values():
    near = toy.mean_loss(np.array([toy.MINIMUM, (0.01, -8.355), (3.0, 0.0)]))
    np.testing.assert_allclose(near, [-15.0916, -15.0916, 0], atol=1e-4)


def test_toy_starts_are_seeds():
    np.testing.assert_array_equal(toy.start(2, toy.STARTS), toy.STARTS[2])
    more = np.array([toy.start(seed, toy.STARTS) for seed in range(8, 40)])
    assert (np.abs(more) < toy.SIDE).all()
    assert len(np.unique(more)) == more.size
    np.testing.assert_array_equal(toy.start(8, toy.STARTS), more[0])


def test_toy_places():
    ends = np.array([(0.0, -8.36), (3.0, -8.37), (5.0, 2.0), (np.nan, np.nan)])
    found = rule.places(ends)
    assert found == ["minimum", "Pareto set", "elsewhere", "elsewhere"]
    assert rule.places(np.array([(7.2, -8.4), (7.04, -8.4)])) == found[2:0:-1]
    assert places.sentence("x", found[:3], rule.PLACES) == (
        "x reaches the minimum of the mean loss from 1, stops elsewhere on the Pareto "
        "set from 1, does not arrive from 1 of 3 starts."
    )
    assert places.sentence("x", found[:1], rule.PLACES) == (
        "x reaches the minimum of the mean loss from 1 of 1 starts."
    )
    assert rule_of_tenth.places(ends) == ["Pareto set", *found[1:]]


def test_the_line_drawn_is_the_pareto_set_and_the_star_the_minimum():
    step = 1e-3
    for share, (x, y) in zip((0, 0.2, 0.5, 0.8, 1), toy.PARETO_SET, strict=True):
        around = [(x + i * step, y + j * step) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        ahead, back = (
            np.asarray(toy.mean_loss(np.array(around), first=first))
            for first in (1.0, 0.0)
        )
        weighted = share * (ahead - back) + (1 - share) * back
        # The lowest of nine points, but for what rounding the corner to 4 digits costs.
        assert weighted[4] <= weighted.min() + 1e-8
    star = np.array(report_of_tenth.GROUND.star)
    beside = star + 0.01 * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    assert np.argmin(report_of_tenth.MEAN_LOSS(beside)) == 0


def results(**ends):
    """Of methods that end there, from the first starts."""
    seeds = len(next(iter(ends.values())))
    methods = {
        name: SimpleNamespace(path=np.array(end)[None, None])
        for name, end in ends.items()
    }
    return SimpleNamespace(methods=methods, settings=SimpleNamespace(seeds=seeds))


AT, BESIDE, IN_VALLEY = toy.MINIMUM, (5.0, -8.4), (5.0, 2.0)


def test_the_claim_of_cagrad_on_hand_made_ends():
    known = {
        "mean": [IN_VALLEY] * 3 + [AT] * 5,
        "mean_fast": [AT] * 8,
        "mgda": [AT, *[BESIDE] * 7],
        "pcgrad": [BESIDE] * 8,
        "cagrad_0.2": [IN_VALLEY] * 8,  # which the claim leaves out
        "cagrad": [AT] * 8 + [IN_VALLEY],  # nor has it a ninth start
        "cagrad_0.8": [AT] * 8,
    }
    found = claim.measured(results(**known))
    assert [own.estimate for own in found][:3] == [3, 8, 8]
    assert len(found) == 8
    assert claims.verdict(found) == "holds"
    for name, ends in {
        "mean": [AT] * 7 + [IN_VALLEY],
        "mean_fast": [AT] * 7 + [BESIDE],
        "mgda": [AT] * 8,
        "pcgrad": [BESIDE] * 7 + [IN_VALLEY],
        "cagrad": [AT] * 7 + [BESIDE],
    }.items():
        other = claim.measured(results(**known | {name: ends}))
        assert claims.verdict(other) == "does not hold here", name


def test_the_claim_of_nash_mtl_and_famo_on_hand_made_ends():
    known = {
        "mean": [AT] * 4 + [IN_VALLEY],
        "imtl_g": [BESIDE] * 5,
        "pcgrad": [IN_VALLEY] * 5,  # which the claim says nothing of
    }
    found = claim_of_tenth.measured(results(**known))
    assert [(own.estimate, own.runs) for own in found] == [(1, 5), (5, 5)]
    assert claims.verdict(found) == "holds"
    for name in ("mean", "imtl_g"):
        ends = [AT] * 5 if name == "mean" else [AT] * 4 + [IN_VALLEY]
        other = claim_of_tenth.measured(results(**known | {name: ends}))
        assert claims.verdict(other) == "does not hold here"


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
    with open(path / "claim.csv", newline="") as file:
        assert [row["runs"] for row in csv.DictReader(file)] == ["8", "8", "8"]
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
def test_the_quick_form_of_the_toy_of_two_scales_leaves_its_claim(tmp_path, capsys):
    assert cli.main(["study", "toy_tenth", "--quick", "--out", str(tmp_path)]) == 0
    assert "The toy with a first loss of a tenth" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (tmp_path / "toy_tenth.png").exists()
    with open(tmp_path / "claim.csv", newline="") as file:
        assert [row["runs"] for row in csv.DictReader(file)] == ["5", "5"]
    with open(tmp_path / "ends.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5
    end = np.array([[float(row[x]) for x in "xy"] for row in rows])
    value = [float(row["mean_loss"]) for row in rows]
    np.testing.assert_allclose(report_of_tenth.MEAN_LOSS(end), value, atol=1e-4)
