"""Every recipe runs as it is written, and what it asserts holds."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
TEXT = PAGE.read_text()


def programs():
    """By title, each on the lines that it has in the page, which errors then show."""
    found, title, inside = {}, "", False
    for number, line in enumerate(TEXT.splitlines()):
        if line.startswith("## "):
            title, inside = line[3:], False
            found[title] = [""] * number
        elif line.startswith("```"):
            inside = line == "```python"
            line = ""
        if title:
            found[title].append(line if inside else "")
    return {title: "\n".join(lines) for title, lines in found.items()}


CODE = programs()
OTHERS = {"equinox", "flatbuffers", "haiku"}  # not there for every Python and jax
FAST = {
    "Equinox",
    "Muon",
    "Schedule-free optimisers",
    "Reducing the rate on a plateau",
    "Starting a method late",
    "Logging",
    "bf16 parameters, float32 moments",
    "Rematerialisation",
}
TWICE = "Two processes"  # the same script, in each of them
MARKED = [
    pytest.param(name, marks=[] if name in FAST else pytest.mark.slow)
    for name in CODE
    if name != TWICE
]


@pytest.mark.parametrize("name", MARKED)
# Of Equinox and Haiku with jax 0.8, as they are imported
@pytest.mark.filterwarnings("ignore:jax.core.*:DeprecationWarning")
def test_recipe_runs(name, tmp_path, monkeypatch):
    for package in OTHERS & set(re.findall(r"^import (\w+)", CODE[name], re.M)):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    exec(compile(CODE[name], str(PAGE), "exec"), {"__name__": "recipe"})


@pytest.mark.slow
def test_the_recipe_for_two_processes_runs_in_two(tmp_path):
    (tmp_path / "train.py").write_text(CODE[TWICE])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "train.py"]
    both = [
        subprocess.Popen(
            [*command, str(process), address, str(tmp_path / "checkpoint")],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in (0, 1)
    ]
    try:
        for process, running in enumerate(both):
            output, _ = running.communicate(timeout=120)
            assert f"process {process} done" in output, output
            assert running.returncode == 0, output
    finally:
        for running in both:
            running.kill()


def test_every_recipe_has_code_that_asserts_and_is_listed():
    for name, code in CODE.items():
        assert "assert " in code, name
    assert FAST <= set(CODE)
    contents = re.findall(r"^\* \[(.*)\]\(#(.*)\)", TEXT, re.M)
    assert [title for title, _ in contents] == list(CODE)
    for title, anchor in contents:
        assert anchor == re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
