"""The study of recent methods: what it compares, and the page made of its numbers."""

import json
import tomllib

import jax
import numpy as np
import optax
import pandas as pd
import pytest
import tiny_study

from benchmarks import join_runs, recent, report, stress_table
from benchmarks.studies.recent import measured, rule, tables
from benchmarks.studies.recent.study import QUICK, STUDY
from benchmarks.studies.recent.tried import NEW
from mtl_optax.catalogue.methods import methods
from mtl_optax.study.command import cli
from mtl_optax.study.engine.methods import EVERY, LEFT_OUT
from mtl_optax.study.engine.transformations import Ingredients

CLAIMS = tomllib.loads(recent.CLAIMS.read_text("utf-8"))
# Public before the new ones were read
ESTABLISHED = {
    *("unitary", "mean", "constant", "rlw", "uw", "imtl_l", "dwa", "gls", "stch"),
    *("scale_invariant", "tchebycheff", "pbi", "cosmos", "famo", "nmt", "mgda"),
    *("cagrad", "pcgrad", "gradvac", "imtl_g", "nash_mtl", "fairgrad", "upgrad"),
    *("dualproj", "conflictfree", "aligned_mtl", "gradnorm", "cdtt", "sdmgrad"),
    *("modo", "pcd", "krum", "graddrop", "trimmed_mean", "excess_mtl", "db_mtl"),
    *("moco", "mconfig", "cso_project", "flat_mtl", "selective_groups", "cso"),
    *("task_affinity",),
}


def test_every_new_method_has_its_claim_and_its_place():
    new = {method.name for method in methods()} - ESTABLISHED
    assert set(CLAIMS) == set(NEW) == new
    for name, said in CLAIMS.items():
        assert set(said) == {"source", "claim", "read"}, name
        assert all(said.values()), name
    assert not {tried.relative for tried in NEW.values()} & set(NEW)
    assert set(QUICK) <= set(NEW)


def test_settings_that_are_tuned_are_those_of_the_methods():
    problem, identity = tiny_study.problem(), optax.identity()
    of = Ingredients(problem, identity, jax.random.key(0), np.ones(2))
    for name, tried in NEW.items():  # or an hour of training would end in a TypeError
        settings = {field: values[0] for field, values in tried.grid.items()}
        assert callable(STUDY.parts[0].known[name](of, **settings).update)


def test_words_are_those_of_the_interval():
    base = np.array([[97.0, 96.0], [96.0, 97.0], [98.0, 95.0]])
    up = base + np.array([[0.5], [0.6], [0.4]])
    assert rule.verdict(up, base) == "better than the sum"
    assert rule.verdict(base, up) == "worse"
    noise = base + np.array([[0.5], [-0.4], [0.1]])
    assert rule.verdict(noise, base) == "no difference that these seeds can show"
    assert rule.verdict(base * np.nan, base) == "unknown: runs diverged"
    assert rule.moved(up, base) == "+0.50 [+0.25, +0.75]"
    assert rule.mean(base[:, 0]) == "97.0 [94.5, 99.5]"
    assert rule.worst(base) == 1
    assert rule.worst(np.array([[1.0, np.nan]])) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a quick run of the study leaves."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["study", "recent", "--quick", "--steps", "3", "--out", str(folder)]
    assert cli.main(command) == 0
    return folder


@pytest.mark.slow
def test_a_run_leaves_what_the_page_is_made_of(whole):
    parts = {part.name: measured.read(whole / part.name) for part in STUDY.quick}
    for own in parts.values():
        assert {*QUICK, "unitary"} < set(own.scores)
        assert all(x.shape == (2, 2, len(own.tasks)) for x in own.scores.values())
    assert set(tables.new_in(parts)) == set(QUICK)
    said = json.loads((whole / "config.json").read_text())["words"]
    assert said[0] == tables.statement(parts)
    assert "Of 8 comparisons with the sum, " in said[0]
    page = recent.made(whole)
    assert "### uw_so" in page
    assert "* **Tuned**: the rate; temperature of 1, 10, 100." in page
    assert page.count(CLAIMS["metabalance"]["claim"]) == 1


@pytest.mark.slow
def test_runs_of_some_methods_are_joined_to_what_one_of_all_would_write(
    whole, tmp_path
):
    name = STUDY.quick[0].name
    first, second = (
        piece(whole / name, tmp_path / x, own)
        for x, own in (("a", QUICK[:1]), ("b", QUICK[1:]))
    )
    out = tmp_path / "joined"
    join_runs.joined([first, second], out, recent.ORDER)
    for file in (measured.RUNS, "summary.csv"):
        key = ["method", "scale"]
        ours, theirs = (
            pd.read_csv(x / file).sort_values(key, kind="stable", ignore_index=True)
            for x in (out, whole / name)
        )
        pd.testing.assert_frame_equal(ours, theirs)
    ours, theirs = (
        json.loads((x / "config.json").read_text()) for x in (out, whole / name)
    )
    assert ours["statement"] == theirs["statement"]
    assert ours["verdicts"] == theirs["verdicts"]
    change(second / "config.json", '"steps": 3', '"steps": 4')
    with pytest.raises(ValueError, match="differ in steps: 4 and 3"):
        join_runs.joined([first, second], out, recent.ORDER)
    change(second / "config.json", '"steps": 4', '"steps": 3')
    change(second / measured.RUNS, "unitary,1,0.003,0,", "unitary,1,0.003,0,9")
    with pytest.raises(ValueError, match="has other numbers of unitary"):
        join_runs.joined([first, second], out, recent.ORDER)


def piece(whole, folder, new):
    """The files of a run of these, their relatives and the sum."""
    names = {"unitary", *new, *(NEW[x].relative for x in new)}
    folder.mkdir()
    for file in (measured.RUNS, "summary.csv"):
        rows = pd.read_csv(whole / file, dtype=str, keep_default_na=False)
        rows[rows["method"].isin(names)].to_csv(folder / file, index=False)
    config = json.loads((whole / "config.json").read_text())
    for key in join_runs.OF_METHODS:
        config[key] = {k: v for k, v in config[key].items() if k in names}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_committed_page_is_made_of_the_committed_numbers():
    target = recent.RESULTS / "README.md"
    text, made = target.read_text("utf-8"), recent.made(recent.RESULTS)
    again = report.page(text, recent.TITLE, made, target.name, recent.BEGIN)
    assert again == text
    assert (recent.RESULTS / "worst.png").exists()
    assert set(tables.new_in(recent.measured(recent.RESULTS))) == set(NEW)


def test_the_committed_stress_table_is_whole_and_made_of_its_numbers():
    target = stress_table.RESULTS / "README.md"
    text, made = target.read_text("utf-8"), stress_table.made(stress_table.RESULTS)
    assert report.page(text, "", made, target.name, stress_table.BEGIN) == text
    config = json.loads((stress_table.RESULTS / "config.json").read_text())
    own = {"s_mean" if name == "samo" else name for name in NEW}
    assert set(config["methods"]) >= {*EVERY, *own}
    assert not set(config["methods"]) & set(LEFT_OUT)
