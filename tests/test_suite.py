"""Studies of several parts: a folder each, one page, and what resuming does."""

import json

import pytest

from mtl_optax.study import cli, studies
from mtl_optax.study.settings import Settings
from mtl_optax.study.suite import Suite

TINY = Settings(("unitary",), seeds=2, steps=2)
PARTS = tuple(studies.NULL._replace(name=x, settings=TINY, quick=TINY) for x in "ab")


@pytest.fixture
def seen(monkeypatch):
    """What the suite was given to write, once a run; the suite stands in for null."""
    runs = []

    def write(whole, folder):
        runs.append(whole)
        if len(runs) == 1:
            raise KeyboardInterrupt
        (folder / "report.html").write_text(whole.suite.title)

    show = lambda whole, console: console.print(*whole.results)  # noqa: E731
    suite = Suite("null", "Two", "Why?", PARTS, PARTS[1:], write, show)
    monkeypatch.setitem(studies.STUDIES, "null", suite)
    return runs


@pytest.mark.slow
def test_parts_resume_until_the_page_is_written(seen, tmp_path, capsys):
    command = ["study", "null", "--out", str(tmp_path)]
    assert cli.main([*command, "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert cli.main(command) == 130
    kept = json.loads((tmp_path / "a" / "config.json").read_text())
    assert kept["study"] == "a"
    assert cli.main([*command, "--resume"]) == 0
    assert "a b" in capsys.readouterr().out
    first, second = seen
    for name in "ab":
        before, after = (x.results[name].outcomes["unitary"] for x in (first, second))
        assert (before.score == after.score).all()
        assert before.run_seconds == after.run_seconds  # it was not trained again
        assert not (tmp_path / name / "checkpoints").exists()
    assert (tmp_path / "report.html").read_text() == "Two"


@pytest.mark.slow
def test_the_smoke_run_has_parts_of_its_own(seen, tmp_path):
    seen.append("not the first")
    assert cli.main(["study", "null", "--quick", "--out", str(tmp_path)]) == 0
    assert list(seen[-1].results) == ["b"]


def test_parts_take_one_optimiser(seen, tmp_path, capsys):
    assert cli.main(["study", "null", "--optimizer", "adam,sgd"]) == 2
    assert "name one optimiser" in capsys.readouterr().err


def test_a_suite_has_no_page_to_join(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"study": "x", "parts": {"a": 1, "b": 2}}')
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "name them instead: a, b" in capsys.readouterr().err
