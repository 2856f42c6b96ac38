"""A row of a method outside the package joins the table; notebook 10 does that."""

import sys
from types import SimpleNamespace

import conftest
import methods

import mtl_optax as mtl

ROW = """
import mtl_optax as mtl
from method_row import Method

def plain(num_tasks):
    return mtl.unitary(num_tasks)

ROW = Method("plain", "losses", plain, lambda num_tasks, norm: num_tasks, {},
             outside=plain)
"""


def test_a_row_of_a_file_joins_the_table(tmp_path, monkeypatch):
    (tmp_path / "row_from_elsewhere.py").write_text(ROW)
    monkeypatch.setattr(methods, "METHODS", [*methods.METHODS])
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = len(methods.METHODS)
    given = {"--row": tmp_path / "row_from_elsewhere.py"}
    conftest.pytest_configure(SimpleNamespace(getoption=given.get))
    *others, row = methods.METHODS
    assert len(others) == known
    assert row.factory is row.make
    assert others[0].factory is getattr(mtl, others[0].name)
