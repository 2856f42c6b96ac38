"""Tables and contents of the pages for users of other packages.

Their programs run in test_pages.py.
"""

import re
from pathlib import Path

import pytest

import mtl_optax as mtl

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {
    name: (DOCS / name).read_text() for name in ("from_torchjd.md", "from_libmtl.md")
}


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
