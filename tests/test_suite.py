"""Studies of several parts: a folder each, one page, and what resuming does."""

import json

import pytest
from tiny_study import part as tiny_part

from mtl_optax.study import studies
from mtl_optax.study.command import cli
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.engine.study import Study
from mtl_optax.study.report.document import Document, Text

TINY = Settings(("unitary",), seeds=2, steps=2)
PARTS = tuple(
    studies.load("null").parts[0]._replace(name=x, settings=TINY, quick=TINY)
    for x in "ab"
)


@pytest.fixture
def seen(monkeypatch):
    """What the study was given to write, once a run; it stands in for null."""
    runs = []

    def document(result, documents):
        assert list(documents) == list(result.parts)
        runs.append(result)
        if len(runs) == 1:
            raise KeyboardInterrupt
        return Document("Two", "Why?", [Text(" ".join(documents))], [])

    study = Study("null", "Two", "Why?", PARTS, PARTS[1:], document)
    monkeypatch.setattr(studies, "load", lambda name: study)
    return runs


@pytest.mark.slow
def test_parts_resume_until_the_page_is_written(seen, tmp_path, capsys):
    command = ["study", "null", "--out", str(tmp_path)]
    assert cli.main([*command, "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert cli.main(command) == 130
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (kept["study"], kept["part"]) == ("null", "a")
    assert cli.main([*command, "--resume"]) == 0
    assert "a b" in capsys.readouterr().out
    first, second = seen
    for name in "ab":
        before, after = (x.parts[name].methods["unitary"] for x in (first, second))
        assert (before.score == after.score).all()
        assert before.run_seconds == after.run_seconds  # it was not trained again
        assert not (tmp_path / name / "checkpoints").exists()
    assert "<h1>Two</h1>" in (tmp_path / "report.html").read_text()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["words"] == ["a b"]
    assert set(config["parts"]) == {"a", "b"}
    means = (tmp_path / "summary.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in means] == ["part", "a", "a", "b", "b"]


@pytest.mark.slow
def test_the_smoke_run_has_parts_of_its_own(seen, tmp_path):
    seen.append("not the first")
    assert cli.main(["study", "null", "--quick", "--out", str(tmp_path)]) == 0
    assert list(seen[-1].parts) == ["b"]


@pytest.mark.slow
def test_parts_without_a_document_have_the_usual_one(monkeypatch, tmp_path):
    study = Study("null", "Two", "Why?", PARTS, PARTS)
    monkeypatch.setattr(studies, "load", lambda name: study)
    assert cli.main(["study", "null", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    for name in "ab":
        assert (tmp_path / name / "metrics.csv").exists()
        assert f'href="{name}/report.html"' in page


def test_parts_take_one_optimiser(seen, tmp_path, capsys):
    assert cli.main(["study", "null", "--optimizer", "adam,sgd"]) == 2
    assert "name one optimiser" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_of_one_part_may_have_a_document(monkeypatch, tmp_path, capsys):
    def document(result, documents):
        return Document("One", "", [Text(f"said of {', '.join(documents)}")], [])

    study = Study("null", "One", "Why?", (tiny_part(),), (tiny_part(),), document)
    monkeypatch.setattr(studies, "load", lambda name: study)
    assert cli.main(["study", "null", "--out", str(tmp_path)]) == 0
    assert "said of tiny" in capsys.readouterr().out
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["words"] == ["said of tiny"]
    assert (tmp_path / "tiny" / "metrics.csv").exists()
