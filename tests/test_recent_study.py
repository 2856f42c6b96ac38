"""The study of recent methods: what it compares, and the page made of its numbers."""

import json
import tomllib

import jax
import numpy as np
import optax
import pandas as pd
import pytest

from benchmarks import recent, recent_runs, report, stress_table
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
    part = STUDY.parts[0]
    key, identity = jax.random.key(0), optax.identity()
    of = Ingredients(part.problem(), identity, key, np.ones(2))
    for name, tried in NEW.items():  # or an hour of training would end in a TypeError
        part.known[name](
            of, **{field: values[0] for field, values in tried.grid.items()}
        )


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


@pytest.mark.slow
def test_quick_run_end_to_end(tmp_path, capsys, monkeypatch):
    """And runs of some methods each are joined to what one run of all would write."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(name, *more):
        folder = tmp_path / name
        command = ["study", "recent", "--quick", "--steps", "3", "--out", str(folder)]
        assert cli.main([*command, *more]) == 0
        return folder

    whole = run("whole")
    said = " ".join(capsys.readouterr().out.split())
    assert "comparisons with the sum" in said
    assert "no difference that these seeds can show" in said
    for part in STUDY.quick:
        own = measured.read(whole / part.name)
        assert {*QUICK, "unitary"} < set(own.scores)
        assert all(x.shape == (2, 2, len(own.tasks)) for x in own.scores.values())
    pieces = [
        run("one", "--methods", f"unitary,{NEW[QUICK[0]].relative},{QUICK[0]}"),
        run("two", "--methods", f"{NEW[QUICK[1]].relative},{QUICK[1]},unitary"),
    ]
    name = STUDY.quick[0].name
    recent_runs.joined([x / name for x in pieces], tmp_path / "joined")
    for file in (measured.RUNS, "summary.csv"):
        key = ["method", "scale"]
        ours, theirs = (
            pd.read_csv(x / file).sort_values(key, kind="stable", ignore_index=True)
            for x in (tmp_path / "joined", whole / name)
        )
        pd.testing.assert_frame_equal(ours, theirs)
    ours, theirs = (
        json.loads((x / "config.json").read_text())
        for x in (tmp_path / "joined", whole / name)
    )
    assert ours["statement"] == theirs["statement"]
    assert ours["verdicts"] == theirs["verdicts"]
    assert len(ours["command"]) == 2

    config = pieces[1] / name / "config.json"
    config.write_text(config.read_text().replace('"steps": 3', '"steps": 4'))
    with pytest.raises(ValueError, match="differ in steps: 4 and 3"):
        recent_runs.joined([x / name for x in pieces], tmp_path / "joined")
    runs = pieces[0] / name / measured.RUNS
    text = runs.read_text().replace("unitary,1,0.003,0,", "unitary,1,0.003,0,9")
    (pieces[0] / name / "other.csv").write_text(text)
    with pytest.raises(ValueError, match="has other numbers of unitary"):
        recent_runs.together([runs, runs.with_name("other.csv")])


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
    assert set(config["methods"]) >= {*EVERY, *NEW}
    assert not set(config["methods"]) & set(LEFT_OUT)
