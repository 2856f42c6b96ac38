"""The catalogue of methods: rows of the docstrings, on the terminal and as a page."""

import inspect
import re
from importlib import resources
from pathlib import Path

import mtl_optax
from mtl_optax.catalogue.docstrings import plain, sections
from mtl_optax.catalogue.methods import methods
from mtl_optax.study.command import cli

ROOT = Path(__file__).resolve().parents[1]
METHODS = "mtl_optax.from_"  # folders


def test_every_public_method_has_a_full_row():
    rows = {row.name: row for row in methods()}
    folders = {
        name
        for name in mtl_optax.__all__
        if getattr(getattr(mtl_optax, name), "__module__", "").startswith(METHODS)
    }
    assert set(rows) == folders
    for row in rows.values():
        assert "backward pass" in row.passes
        for cell in (row.state, row.scale, row.when_not):
            assert cell not in ("", "-"), row.name


def test_rows_say_what_the_docstrings_say():
    rows = {row.name: row for row in methods()}
    assert list(rows)[:2] == ["constant", "cosmos"]
    assert rows["unitary"][1:5] == (
        *("losses", "one backward pass with lazy gradients", "none", "sum"),
    )
    assert rows["pcgrad"].needs == "Gramian, key"
    assert rows["pcgrad"].state == "one key"
    assert "INFERRED" in rows["pcgrad"].inferred
    assert rows["uw"].state == "4 numbers a task with Adam"
    assert rows["mgda"].needs == "Gramian, losses (some options)"
    assert "never conflicts" in rows["upgrad"].guarantee
    assert all(len(row.guarantee) > 1 for row in rows.values())


def test_sections_of_a_docstring():
    def method():
        r"""One line.

        .. math::
          d = 0

        It never moves; :math:`\|d\| \ge 0`.

        Returns:
          Zero. Output scale: none
          at all. More.

        Invariances: to everything.

        Guarantee: :math:`\|d\| \ge 0`, INFERRED.
        """

    parts = sections(inspect.getdoc(method))
    assert parts[""] == r"One line. It never moves; :math:`\|d\| \ge 0`."
    assert parts["Returns"] == "Zero. Output scale: none at all. More."
    assert parts["Invariances"] == "to everything."
    assert plain(parts["Guarantee"]) == "‖d‖ ≥ 0, INFERRED."


def test_methods_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert all(row.name in out for row in methods())
    assert "When not to use it: if task gradients differ much in length" in out
    assert max(map(len, out.splitlines())) <= 80
    advice = out[out.index("Which to try") :]
    assert re.search(r"One task matters, .*metabalance, auto_lambda,", advice)


def test_costs_are_shortened():
    rows = {row.name: row.costs() for row in methods()}
    assert rows["unitary"] == ("unitary", "losses", "1", "none", "sum")
    assert rows["cagrad"][-1] == "mean"
    assert rows["nash_mtl"][-1] == "norm sqrt(T)"
    assert rows["graddrop"][2] == "T + T copies"


def test_the_committed_page_is_what_the_docstrings_give(capsys):
    assert cli.main(["methods", "--markdown"]) == 0
    page = capsys.readouterr().out
    committed = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    command = "mtl-optax methods --markdown > docs/choosing.md"
    assert committed == page, f"run: {command}"
    assert command in page
    for row in methods():
        assert f"\n### {row.name}\n" in page
    targets = re.findall(r"\]\(#(\w+)\)", page)
    assert set(targets) == {row.name for row in methods()}


def test_the_guide_names_what_there_is():
    package = resources.files("mtl_optax.catalogue")
    advice = package.joinpath("advice.md").read_text("utf-8")
    guide = [line.split(" | ") for line in advice.splitlines() if line[:2] == "| "]
    assert len(guide) > 10
    assert {len(cells) for cells in guide} == {3}
    for _, names, _ in guide[2:]:  # below the head
        tried = re.findall(r"`(\w+)`", names)
        assert names == ", ".join(f"`{name}`" for name in tried)
        assert set(tried) <= {row.name for row in methods()}
    for name in re.findall(r"`mtl\.(\w+)", advice):
        assert name in mtl_optax.__all__
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/choosing.md)" in readme
