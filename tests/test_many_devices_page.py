"""docs/many_devices.md: its programs run, and print about what it says they print."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "many_devices.md"
TEXT = PAGE.read_text(encoding="utf-8")
NUMBER = r"\d+\.\d"


@pytest.mark.slow
def test_programs_run_and_print_what_the_page_shows(capsys):
    names = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        assert "assert " in code
        exec(compile(code, str(PAGE), "exec"), names)
    (shown,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    printed = capsys.readouterr().out
    assert re.sub(r" *" + NUMBER, "", printed) == re.sub(r" *" + NUMBER, "", shown)
    found, wanted = (
        list(map(float, re.findall(NUMBER, text))) for text in (printed, shown)
    )
    assert found == pytest.approx(wanted, rel=0.25)  # other versions of XLA


def test_what_the_page_links_to_is_there():
    for path, anchor in re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)\)", TEXT):
        target = PAGE.parent / path
        assert target.exists(), path
        assert not anchor or f"(#{anchor})" in target.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:findings|docs)/[^`]+)`", TEXT):
        assert (PAGE.parents[1] / path).exists(), path
