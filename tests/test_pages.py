"""The programs of every page in docs/ run as they are written, one after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Pages whose programs a test of their own runs.
OWN = {
    "gramian": "test_gramian_page.py",
    "many_devices": "test_many_devices_page.py",
    "many_hosts": "many_hosts_process.py",
    "recipes": "test_recipes.py",
}


def programs(page):
    """Those of a page, each on the lines that it has there, which errors then show."""
    text = page.read_text("utf-8")
    return [
        "\n" * text.count("\n", 0, found.start(1)) + found[1]
        for found in re.finditer(
            r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE
        )
    ]


PAGES = {x.stem: x for x in sorted((ROOT / "docs").glob("*.md")) if programs(x)}


@pytest.mark.parametrize("name", sorted(PAGES.keys() - OWN.keys()))
@pytest.mark.slow
def test_programs_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for code in programs(PAGES[name]):
        exec(compile(code, str(PAGES[name]), "exec"), names)


def test_pages_with_a_test_of_their_own_have_it():
    for name, test in OWN.items():
        assert name in PAGES
        assert f'"{name}.md"' in (ROOT / "tests" / test).read_text("utf-8")
