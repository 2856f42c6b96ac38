"""Joined pages: results of several folders, of this version and of earlier ones."""

import csv
import json
from pathlib import Path

import pytest
from study_folder import write

from mtl_optax.study.command import cli
from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.report import html, joined
from mtl_optax.study.studies.null.study import STUDY

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "null"
    settings = Settings(("unitary",), seeds=2, steps=2, learning_rates=(1e-4, 1e-2))
    write(path, run(STUDY.parts[0], settings), "mtl-optax study null")
    return path


def copied(folder, path, **changes):
    path.mkdir()
    (path / "summary.csv").write_bytes((folder / "summary.csv").read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.slow
def test_report_joins_folders(folder, tmp_path, capsys):
    again = copied(folder, tmp_path / "again")
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
    read = joined.read(folder)
    with open(folder / "metrics.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
    chosen = [float(r["accuracy"]) for r in rows if r["chosen"] == "1"]
    assert len(chosen) == len(rows) / 2
    assert read.means["mean"].mean() == pytest.approx(sum(chosen) / len(chosen))


def test_units_split_and_credits_are_those_of_the_results(folder, tmp_path):
    metric = {"name": "accuracy", "unit": "points of mine", "higher_is_better": True}
    other = copied(
        *(folder, tmp_path / "other"),
        study="mine",
        metrics=[metric],
        reported_on="holdout",
        credits="Photographs of mine.",
    )
    page = html.page(joined.join([joined.read(folder), joined.read(other)]))
    assert "Test accuracy / %, mean ± sd over seeds." in page
    assert "Holdout accuracy / points of mine, mean ± sd over seeds." in page
    foot = page[page.index("<footer>") :]
    assert foot.count("Alpaydin") == foot.count("Photographs of mine.") == 1


@pytest.mark.parametrize(
    "name",
    ["stress", "groups/mlp_6", "priority/cso", "priority/nmt", "vmtl/labels_5"],
)
def test_committed_results_of_earlier_versions_are_read(name):
    read = joined.read(RESULTS / name)
    assert isinstance(read.metric, Metric)
    document = joined.join([read])
    table = document.body[0]
    assert len(table.rows) == len(read.config["verdicts"])
    assert table.rows[0][-2].replace(" ± ", "").replace(".", "").isdigit()


def test_report_of_nothing(folder, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    head = (folder / "summary.csv").read_text().splitlines()[0]
    (tmp_path / "summary.csv").write_text(head + "\n")
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "numbers of unitary are missing" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"study": "x", "parts": {"a": 1, "b": 2}}')
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "name them instead: a, b" in capsys.readouterr().err
