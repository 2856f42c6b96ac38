"""Writes docs/api/: a page for each group of symbols and one for each symbol."""

import importlib
import inspect
import re
from pathlib import Path

from public import Group, groups, is_record
from sphinx.application import Sphinx


def write(app: Sphinx) -> None:
    """All pages; a page that stays the same keeps its date, one without cause goes."""
    folder = Path(app.srcdir, "docs", "api")
    folder.mkdir(exist_ok=True)
    pages = {"index": _index(groups())}
    for group in groups():
        pages[group.page] = _group(group)
        pages |= {f"{module}.{name}": _symbol(module, name) for module, name in group.symbols}
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _index(found: list[Group]) -> str:
    lines = "\n".join(f"   {group.page}" for group in found)
    return (
        _title("API")
        + "Every public name, from its docstring. Methods are sorted by what they need "
        "to see,\nwhich is the order of their cost.\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{lines}\n"
    )


def _group(group: Group) -> str:
    names = [f"{module}.{name}" for module, name in group.symbols]
    table = "\n".join(f"   ~{name}" for name in names)
    tree = "\n".join(f"   {name.rpartition('.')[2]} <{name}>" for name in names)
    return (
        f"{_title(group.title)}{group.about}\n\n"
        f".. autosummary::\n   :nosignatures:\n\n{table}\n\n"
        f".. toctree::\n   :hidden:\n\n{tree}\n"
    )


def _symbol(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    head = f"{_title(name)}.. currentmodule:: {module}\n\n"
    if not isinstance(value, type):
        return f"{head}.. autofunction:: {name}\n"
    text = f"{head}.. autoclass:: {name}\n"
    return text + (_fields(value) if is_record(value) else _members(value))


def _fields(record: type) -> str:
    """The fields of a NamedTuple, with the comment that stands beside each."""
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)", inspect.getsource(record), re.M))
    lines = [
        f"   * ``{field}``" + (f": {comments[field]}" if field in comments else "")
        for field in record._fields
    ]
    methods = [x for x, f in vars(record).items() if x[0] != "_" and inspect.getdoc(f)]
    methods = [x for x in methods if x not in record._fields]
    parts = "".join(f"\n   .. autoattribute:: {x}\n" for x in methods)
    return "\n" + "\n".join(lines) + "\n" + parts


def _members(value: type) -> str:
    """What the class itself says something about."""
    return (
        "   :members:\n   :special-members: __call__\n"
        if "__call__" in vars(value)
        else "   :members:\n"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
