"""The command line beside the study: the table of methods, joined pages, the cache."""

import csv
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import mtl_optax
from mtl_optax.study import (
    cache,
    catalogue,
    choosing,
    choosing_page,
    cli,
    compare,
    docstrings,
    join,
    report,
    studies,
    styles,
    toy,
    toy_report,
)
from mtl_optax.study.settings import Settings
from mtl_optax.study.verdicts import toy as toy_verdicts

ROOT = Path(__file__).resolve().parents[1]


# --- Methods --------------------------------------------------------------------------


@pytest.mark.slow
def test_several_optimisers_have_a_folder_each_and_share_a_page(tmp_path, capsys):
    options = ["--methods", "unitary,mean", "--seeds", "2", "--steps", "4"]
    command = ["study", "null", "--optimizer", "adam,sgd", *options]
    command += ["--out", str(tmp_path)]
    assert cli.main(command) == 0
    for name in ("adam", "sgd"):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["optimizer"] == name
        assert name in (tmp_path / "report.html").read_text()
    capsys.readouterr()
    assert cli.main([*command, "--resume"]) == 0
    assert capsys.readouterr().out.count("is finished") == 2


def test_unknown_optimisers_are_answered_with_the_known(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["study", "--optimizer", "adam,lion"])
    assert "'lion'; known: adam, sgd" in capsys.readouterr().err
    assert cli.main(["study", "toy", "--optimizer", "adam,sgd"]) == 2


METHODS = "mtl_optax.from_"  # folders


def test_every_public_method_has_a_full_row():
    rows = {row.name: row for row in catalogue.methods()}
    folders = {
        name
        for name in mtl_optax.__all__
        if getattr(getattr(mtl_optax, name), "__module__", "").startswith(METHODS)
    }
    assert set(rows) == folders
    for row in rows.values():
        assert "backward pass" in row.passes
        for cell in (row.state, row.scale, row.when_not):
            assert cell not in ("", "-"), row.name


def test_rows_say_what_the_docstrings_say():
    rows = {row.name: row for row in catalogue.methods()}
    assert list(rows)[:2] == ["constant", "cosmos"]
    assert rows["unitary"][1:5] == (
        *("losses", "one backward pass with lazy gradients", "none", "sum"),
    )
    assert rows["pcgrad"].needs == "Gramian, key"
    assert rows["pcgrad"].state == "one key"
    assert "INFERRED" in rows["pcgrad"].inferred
    assert rows["uw"].state == "4 numbers a task with Adam"
    assert rows["mgda"].needs == "Gramian, losses (some options)"
    assert "never conflicts" in rows["upgrad"].guarantee
    assert all(len(row.guarantee) > 1 for row in rows.values())


def test_sections_of_a_docstring():
    def method():
        r"""One line.

        .. math::
          d = 0

        It never moves; :math:`\|d\| \ge 0`.

        Returns:
          Zero. Output scale: none
          at all. More.

        Invariances: to everything.

        Guarantee: :math:`\|d\| \ge 0`, INFERRED.
        """

    parts = docstrings.sections(inspect.getdoc(method))
    assert parts[""] == r"One line. It never moves; :math:`\|d\| \ge 0`."
    assert parts["Returns"] == "Zero. Output scale: none at all. More."
    assert parts["Invariances"] == "to everything."
    assert docstrings.plain(parts["Guarantee"]) == "‖d‖ ≥ 0, INFERRED."


def test_methods_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert all(row.name in out for row in catalogue.methods())
    assert "When not to use it: if task gradients differ much in length" in out
    assert max(map(len, out.splitlines())) <= 80


def test_costs_are_shortened():
    rows = {row.name: row.costs() for row in catalogue.methods()}
    assert rows["unitary"] == ("unitary", "losses", "1", "none", "sum")
    assert rows["cagrad"][-1] == "mean"
    assert rows["nash_mtl"][-1] == "norm sqrt(T)"
    assert rows["graddrop"][2] == "T + T copies"


def test_the_committed_page_is_what_the_docstrings_give(capsys):
    assert cli.main(["methods", "--markdown"]) == 0
    page = capsys.readouterr().out
    committed = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    command = "mtl-optax methods --markdown > docs/choosing.md"
    assert committed == page, f"run: {command}"
    assert command in page
    for row in catalogue.methods():
        assert f"\n### {row.name}\n" in page
    targets = re.findall(r"\]\(#(\w+)\)", page)
    assert set(targets) == {row.name for row in catalogue.methods()}


def test_the_guide_names_what_there_is():
    names = {name for advice in choosing.GUIDE for name in advice.names}
    planned = set(styles.ORDER)  # left out of the page until they are public
    assert names <= set(mtl_optax.__all__) | planned
    text = choosing.INTRODUCTION + choosing_page.REMARKS
    for name in re.findall(r"`mtl\.(\w+)", text):
        assert name in mtl_optax.__all__
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/choosing.md)" in readme


# --- The toy --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "toy"
    settings = toy.STUDY.settings._replace(methods=("mean", "pcgrad"), steps=450)
    ticks = []
    results = compare.run(toy.STUDY, settings, lambda *event: ticks.append(event))
    toy_report.write(path, results, "mtl-optax study toy", seconds=1.0)
    return path, results, ticks


@pytest.mark.slow
def test_toy_runs_in_float64_and_leaves_the_flag_alone(toy_folder):
    _, results, ticks = toy_folder
    assert not jax.config.jax_enable_x64
    for method, out in results.outcomes.items():
        assert out.path.dtype == out.losses.dtype == np.float64
        assert out.path.shape == (225, 1, 8, 2)  # every second step
        path = np.concatenate([np.array(toy.STARTS)[None], out.path[:, 0]])
        moves = np.abs(np.diff(path, axis=0))
        assert 0 < moves.max() < 3e-3
        assert (method, "training", 450) in ticks
        np.testing.assert_allclose(
            out.score[0].mean(axis=-1), toy.mean_loss(toy_verdicts.ends(out))
        )


def test_toy_values():
    near = toy.mean_loss(np.array([toy_verdicts.MINIMUM, (0.01, -8.355), (3.0, 0.0)]))
    np.testing.assert_allclose(near, [-15.0916, -15.0916, 0], atol=1e-4)


def test_toy_starts_are_seeds():
    np.testing.assert_array_equal(toy.start(2), toy.STARTS[2])
    more = np.array([toy.start(seed) for seed in range(8, 40)])
    assert (np.abs(more) < toy.SIDE).all()
    assert len(np.unique(more)) == more.size
    np.testing.assert_array_equal(toy.start(8), more[0])


def test_toy_places():
    ends = np.array([(0.0, -8.36), (3.0, -8.37), (5.0, 2.0), (np.nan, np.nan)])
    places = toy_verdicts.places(ends)
    assert places == ["minimum", "Pareto set", "elsewhere", "elsewhere"]
    assert toy_verdicts.sentence("x", places[:3]) == (
        "x reaches the minimum of the mean loss from 1, stops elsewhere on the Pareto "
        "set from 1, does not arrive from 1 of 3 starts."
    )
    assert toy_verdicts.sentence("x", places[:1]) == (
        "x reaches the minimum of the mean loss from 1 of 1 starts."
    )


@pytest.mark.slow
def test_toy_report(toy_folder, capsys):
    path, results, _ = toy_folder
    with open(path / "ends.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 8
    assert tuple(rows[0]) == toy_report.COLUMNS
    with open(path / "metrics.csv", newline="") as file:
        metrics = list(csv.DictReader(file))
    assert len(metrics) == 2 * 8 * 2  # and tasks
    assert {row["split"] for row in metrics} == {"end"}
    mean = (float(metrics[0]["loss"]) + float(metrics[1]["loss"])) / 2
    assert mean == pytest.approx(float(rows[0]["mean_loss"]), abs=1e-4)
    config = json.loads((path / "config.json").read_text())
    assert config["study"] == "toy"
    assert config["precision"] == "float64"
    assert (path / "toy.png").read_bytes().startswith(b"\x89PNG")
    page = (path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    assert results.judgement.sentences["mean"] in page
    toy_report.show(Console(width=80), results)
    assert "mean does not arrive" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["report", str(path)]) == 2
    assert "whose report stands alone" in capsys.readouterr().err


def test_toy_on_the_command_line(tmp_path, capsys):
    assert cli.main(["study", "toy", "--methods", "single_task"]) == 2
    assert "unknown method 'single_task'; known: unitary" in capsys.readouterr().err
    options = ["--methods", "mean", "--seeds", "9", "--steps", "20", "--no-cache"]
    rates = ["--lr", "0.1,0.001"]
    where = ["--out", str(tmp_path)]
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


@pytest.mark.slow
def test_cagrad_reaches_the_minimum_and_the_mean_does_not():
    settings = toy.STUDY.settings._replace(methods=("mean", "cagrad"))
    results = compare.run(toy.STUDY, settings)
    found = {
        m: toy_verdicts.places(toy_verdicts.ends(out))
        for m, out in results.outcomes.items()
    }
    assert found["cagrad"] == ["minimum"] * 8
    assert found["mean"] == ["elsewhere"] * 3 + ["minimum"] * 5
    assert "is reached by cagrad." in results.judgement.statement


# --- Joined pages ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "null"
    settings = Settings(("unitary",), seeds=2, steps=2, learning_rates=(1e-4, 1e-2))
    results = compare.run(studies.NULL, settings)
    report.write(path, results, "mtl-optax study null", seconds=1.0)
    return path


@pytest.mark.slow
def test_report_joins_folders(folder, tmp_path, capsys):
    again = tmp_path / "again"
    again.mkdir()
    for name in ("config.json", "metrics.csv"):
        (again / name).write_bytes((folder / name).read_bytes())
    page = tmp_path / "pages" / "both.html"
    assert cli.main(["report", str(folder), str(again), "--out", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.count("<h2>null</h2>") == 1  # one table for both
    assert text.count("baseline</td>") == 2
    figures = text.count("data:image/png;base64,")
    assert figures == len(list(folder.glob("*.png")))  # only the first has figures
    assert "http" not in text.replace("https://doi.org", "").replace("http-", "")
    assert str(again) in text


def test_only_chosen_rates_are_joined(folder):
    read = join.read(folder)
    with open(folder / "metrics.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
    chosen = [float(r["accuracy"]) for r in rows if r["chosen"] == "1"]
    assert len(chosen) == len(rows) / 2
    assert read.scores["unitary"].ravel().tolist() == chosen


@pytest.mark.slow
def test_report_of_nothing(folder, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "metrics.csv").write_text("method\n")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "numbers of unitary are missing" in capsys.readouterr().err


# --- Compilation cache ----------------------------------------------------------------


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "mtl-optax" / "jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "mtl-optax" / "jax"


def test_cache_is_configured_by_the_flag(monkeypatch, tmp_path):
    names = (
        "jax_enable_compilation_cache",
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        cache.configure(False)
        assert not cache.in_use()
        jax.config.update("jax_compilation_cache_dir", None)
        cache.configure(True)
        assert cache.in_use()
        assert getattr(jax.config, names[1]) == str(cache.folder())
        jax.config.update("jax_compilation_cache_dir", "mine")
        cache.configure(True)
        assert getattr(jax.config, names[1]) == "mine"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--no-cache",)])
def test_cache_end_to_end(flags, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "mtl_optax.study.cli", "study"]
    tiny = ["null", "--methods", "unitary", "--seeds", "1", "--steps", "1"]
    done = subprocess.run(
        [*command, *tiny, "--out", str(tmp_path / "out"), *flags],
        cwd=tmp_path,
        env={
            # A cache of the user's own would be left as it is.
            **{name: x for name, x in os.environ.items() if "_CACHE" not in name},
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    entries = list((tmp_path / "cache").rglob("*-cache"))
    assert bool(entries) == (not flags)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["compilation_cache"] == (not flags)
    assert not (tmp_path / "out" / "checkpoints").exists()
