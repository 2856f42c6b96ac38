"""The pages for users of other packages: our side runs, and gives what theirs gave."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {
    name: (DOCS / name).read_text() for name in ("from_torchjd.md", "from_libmtl.md")
}


def programs():
    """Each on the lines that it has in the page, which errors then show."""
    for page, text in PAGES.items():
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
            before = text[: block.start(1)]
            title = re.findall(r"^## (.*)", before, re.M)[-1]
            code = "\n" * before.count("\n") + block[1]
            yield pytest.param(
                page, code, id=f"{page}: {title}", marks=pytest.mark.slow
            )


@pytest.mark.parametrize(("page", "code"), list(programs()))
def test_our_side_runs(page, code):
    exec(compile(code, page, "exec"), {"__name__": "page"})
