"""The rooms of the study: imports point one way, and files stay short."""

import ast
import pathlib
import re
import textwrap

import pytest

import mtl_optax as mtl
from mtl_optax.study import studies
from mtl_optax.study.command import cli

PACKAGE = pathlib.Path(mtl.__file__).parent
STUDY = PACKAGE / "study"
TRAINING, TRAINS = PACKAGE / "training", "mtl_optax.training"
LARGE = PACKAGE.parent / "benchmarks" / "studies"
FOLDERS = {"mtl_optax.study.studies": STUDY / "studies", "benchmarks.studies": LARGE}
# What each room may import of the study, itself aside.
BELOW = {
    "engine": set(),
    "data": {"engine"},
    "report": {"engine"},
    "studies": {"engine", "data", "report"},
    "command": {"engine", "report", "studies"},
}
PRINTERS = ("rich", "jinja2", "matplotlib")


def imported(path):
    """The modules that a file imports, each with what it takes of it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_one_way(room):
    allowed = [f"mtl_optax.study.{name}" for name in (room, *BELOW[room])]
    files = sorted((STUDY / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            if name.startswith("mtl_optax.study") or name == "mtl_optax.study":
                assert name.startswith(tuple(allowed)), (path, name)


@pytest.mark.parametrize("package", FOLDERS)
def test_a_study_stands_on_the_rooms_and_imports_no_other(package):
    below = [f"mtl_optax.study.{name}." for name in BELOW["studies"]]
    for path in FOLDERS[package].rglob("*.py"):
        own = path.relative_to(FOLDERS[package]).parts[0]
        for name in imported(path):
            if name.startswith(("mtl_optax.study", "benchmarks")):
                allowed = (*below, f"{package}.{own}.")
                assert f"{name}.".startswith(allowed), (path, name)


def test_the_engine_knows_no_page_and_no_terminal():
    for path in (STUDY / "engine").rglob("*.py"):
        for name in imported(path):
            assert not name.startswith(PRINTERS), (path, name)


def test_the_catalogue_and_the_library_know_no_study():
    for path in PACKAGE.rglob("*.py"):
        if not {STUDY, TRAINING} & set(path.parents):
            for name in imported(path):
                assert not name.startswith(("mtl_optax.study", TRAINS)), (path, name)


def test_training_stands_on_the_engine_and_the_report():
    below = tuple(f"mtl_optax.study.{name}." for name in ("engine", "report"))
    for path in TRAINING.rglob("*.py"):
        for name in imported(path):
            if name.startswith("mtl_optax.study"):
                assert name.startswith(below), (path, name)


def test_data_sets_on_disk_need_no_jax():
    for path in (PACKAGE / "data").rglob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] not in ("jax", "flax", "optax"), (path, name)


def test_a_folder_and_a_line_make_a_study():
    small, large = (
        {path.parent.name for path in folder.glob("*/study.py")}
        for folder in FOLDERS.values()
    )
    assert small == set(studies.OWN)
    assert not small & large  # a name is one study
    assert large == set(studies.STUDIES) - small
    # All else is found through the registry: nothing names a study but its own folder.
    for room in set(BELOW) - {"studies"}:
        for path in (STUDY / room).rglob("*.py"):
            named = {x for x in imported(path) if x.startswith(tuple(FOLDERS))}
            registry = "mtl_optax.study.studies"
            assert named <= {registry, f"{registry}.STUDIES"}, path


def test_without_a_clone_there_are_the_small_studies(monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "CLONE", tmp_path)
    assert studies._in_clone() == {}


def test_files_stay_short():
    for room in (STUDY, PACKAGE / "catalogue", LARGE):
        for path in room.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert len(path.read_text("utf-8").splitlines()) <= 200, path


def test_the_example_for_new_studies_is_a_study(tmp_path, monkeypatch, capsys):
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    section = text[text.index("## A new study in five steps") :]
    code = re.search(r"   ```python\n(.*?)   ```", section, re.DOTALL)[1]
    made = {}
    exec(compile(textwrap.dedent(code), "CONTRIBUTING.md", "exec"), made)
    monkeypatch.setattr(studies, "load", lambda name: made["STUDY"])
    command = ["study", "null", "--quick", "--steps", "4", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    assert (
        "Test squared error. Mean ± sd over 2 seed(s), 4 steps, in sd²"
        in capsys.readouterr().out
    )
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Linnerud&#39;s exercises" in page
    assert page.count("data:image/png;base64,") == 2
