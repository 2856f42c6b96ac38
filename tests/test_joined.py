"""Joined pages: results of several folders, of this version and of earlier ones."""

import csv
import json
import re
from pathlib import Path

import pytest
from study_folder import write

from mtl_optax.study.command import cli
from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.engine.run import run
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.report import html, joined
from mtl_optax.study.report.document import Table
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
    assert text.count("<h3>null</h3>") == 1  # one table for both
    assert text.count("baseline</td>") == 2
    figures = text.count("data:image/png;base64,")
    assert figures == len(list(folder.glob("*.png")))  # only the first has figures
    assert "http" not in text.replace("https://doi.org", "").replace("http-", "")
    assert str(again) in text
    assert cli.main(["report", str(folder), "--out", str(tmp_path)]) == 0
    assert "1 results" in (tmp_path / "joined.html").read_text(encoding="utf-8")


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
    # Percents to a tenth, other numbers to a thousandth, as on their own pages.
    (row,), (mine,) = (
        joined.join([joined.read(x)]).body[0].rows for x in (folder, other)
    )
    assert re.fullmatch(r"[\d.]+ ± \d+\.\d", row[6])
    assert re.fullmatch(r"[\d.]+ ± \d+\.\d{3}", mine[6])
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


def tables(*folders):
    return [x for x in joined.join(list(folders)).body if isinstance(x, Table)]


def test_what_differs_in_metric_unit_or_split_has_tables_apart(folder, tmp_path):
    metric = {"name": "accuracy", "unit": "%", "higher_is_better": True}
    plain = joined.read(folder)
    for name, changes in {
        "unit": {"metrics": [metric | {"unit": ""}]},
        "split": {"reported_on": "holdout"},
        "scales": {"loss_scales": [1.0]},
    }.items():
        other = joined.read(copied(folder, tmp_path / name, **changes))
        number = 1 if name == "scales" else 2
        assert len(tables(plain, other)) == number, name
    # Earlier versions did not record the unit: theirs is that of the others.
    old = joined.read(copied(folder, tmp_path / "old", metrics=["accuracy"]))
    for both in (plain, old), (old, plain):
        (table,) = tables(*both)
        assert table.note.startswith("Test accuracy / %")


def test_optimisers_of_one_study_share_a_table(folder, tmp_path):
    adam = joined.read(copied(folder, tmp_path / "adam", part="adam"))
    sgd = joined.read(copied(folder, tmp_path / "sgd", part="sgd", optimizer="sgd"))
    (table,) = tables(adam, sgd)
    assert table.title == "null"
    assert [row[2] for row in table.rows] == ["adam", "sgd"]
    other = joined.read(copied(folder, tmp_path / "other", part="other"))
    assert len(tables(adam, sgd, other)) == 2


@pytest.mark.parametrize("name", ["1", "null", "NA", "nan"])
def test_names_that_look_like_numbers_or_nothing(folder, tmp_path, name):
    other = copied(folder, tmp_path / "other", tasks=[name, "right"], methods=[name])
    summary = other / "summary.csv"
    text = summary.read_text().replace(",left,", f",{name},")
    text = text.replace(",unitary,", f",{name},").replace(",0.01,", ",30,")
    summary.write_text(text)
    (table,) = tables(joined.read(other))
    (row,) = table.rows
    assert row[0] == name
    assert row[3] in ("30", "0.0001")
    assert name in table.head


def test_what_cannot_be_read_is_named(folder, tmp_path, capsys):
    def refused(path):
        assert cli.main(["report", str(path), "--out", str(tmp_path / "x.html")]) == 2
        return capsys.readouterr().err

    assert "cannot be read: Not a directory" in refused(folder / "config.json")
    for name, content in {
        "binary": b"\xff\xfe\x00",
        "list": b"[]",
        "text": b'"parts"',
        "cut": b'{"study": ',
    }.items():
        other = copied(folder, tmp_path / name)
        (other / "config.json").write_bytes(content)
        assert "holds no results of this version" in refused(other)
    broken = copied(folder, tmp_path / "broken")
    (broken / "summary.csv").write_bytes(b'a,b\n"\xff')
    assert "holds no results of this version" in refused(broken)
    for key in ("verdicts", "optimizer", "statement", "command", "steps"):
        other = copied(folder, tmp_path / key)
        config = json.loads((other / "config.json").read_text())
        del config[key]
        (other / "config.json").write_text(json.dumps(config))
        assert f"config.json has no {key}" in refused(other)
    tasks = copied(folder, tmp_path / "tasks", tasks=["left", "wrong"])
    assert "numbers of unitary are missing" in refused(tasks)
