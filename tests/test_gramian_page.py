"""docs/gramian.md: its programs run, and print what it says they print."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gramian.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_programs_run_and_print_what_the_page_shows(capsys):
    explained, own_pullback = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {}
    exec(compile(explained, f"{PAGE}: explain", "exec"), names)
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert capsys.readouterr().out == shown
    assert "assert " in own_pullback
    exec(compile(own_pullback, f"{PAGE}: gramian_vjp", "exec"), names)


def test_what_the_page_links_to_is_there():
    paths = re.findall(r"\]\((?!http)([^)#]+)", TEXT)
    assert "images/gramian.png" in paths
    for path in paths:
        assert (PAGE.parent / path).exists(), path
