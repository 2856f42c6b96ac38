"""The pages for users of other packages: our side runs, and gives what theirs gave."""

import re
from pathlib import Path

import pytest

import mtl_optax as mtl

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


@pytest.mark.parametrize("page", PAGES)
def test_contents_are_complete(page):
    titles = re.findall(r"^## (.*)", PAGES[page], re.M)
    listed = re.findall(r"^\* \[(.*)\]\(#(.*)\)", PAGES[page], re.M)
    assert [title for title, _ in listed] == titles
    for title, anchor in listed:
        assert anchor == re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_ours_in_the_tables_are_methods_of_ours(page):
    table = PAGES[page].split("| apart |")[1].split("\n\n")[0]
    cells = [row.split("|")[2] for row in table.splitlines()[2:]]
    named = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    assert len(named) > 20
    assert named <= {*mtl.__all__}
