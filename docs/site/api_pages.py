"""Writes docs/api/: a page for each group of symbols and one for each symbol."""

import importlib
import inspect
import re
from pathlib import Path

from public import Group, groups, is_record
from sphinx.application import Sphinx


def pages() -> dict[str, str]:
    """Name -> text of all of them."""
    found = groups()
    texts = {"index": _index(found)}
    for group in found:
        texts[group.page] = _group(group)
        for module, name in group.symbols():
            texts[f"{module}.{name}"] = _symbol(group, module, name)
    return texts


def write(app: Sphinx) -> None:
    """Those that changed, so that a second build is short; others are removed."""
    folder = Path(app.srcdir, "docs", "api")
    folder.mkdir(exist_ok=True)
    wanted = {folder / f"{name}.rst": text for name, text in pages().items()}
    for path in set(folder.glob("*.rst")) - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _index(found: list[Group]) -> str:
    return (
        _title("API")
        + "Every public name, from its docstring. Methods are sorted by what they need "
        + "to see,\nwhich is the order of their cost.\n\n"
        + ".. toctree::\n   :maxdepth: 1\n\n"
        + "".join(f"   {group.page}\n" for group in found)
    )


def _group(group: Group) -> str:
    text = f"{_title(group.title)}{group.about}\n\n"
    for module, names in group.names.items():
        if module.count("."):  # one that users import by itself: it says what it is
            if len(group.names) > 1:
                text += _title(module.removeprefix("mtl_optax."), "-")
            text += f".. automodule:: {module}\n   :no-members:\n\n"
        text += (
            f".. currentmodule:: {module}\n\n.. autosummary::\n   :nosignatures:\n\n"
        )
        text += "".join(f"   {name}\n" for name in names) + "\n"
    return text


def _symbol(group: Group, module: str, name: str) -> str:
    """Outside of the tables of contents, which every page repeats: they stay short."""
    value = getattr(importlib.import_module(module), name)
    head = f":orphan:\n\n{_title(name)}:doc:`{group.title} <{group.page}>`\n\n"
    head += f".. currentmodule:: {module}\n\n"
    if not isinstance(value, type):
        return f"{head}.. autofunction:: {name}\n"
    body = _fields(value) if is_record(value) else _members(value)
    return f"{head}.. autoclass:: {name}\n{body}"


def _fields(record: type) -> str:
    """The fields of a NamedTuple, with the comment that stands beside each."""
    if "Attributes:" in (inspect.getdoc(record) or ""):
        return ""
    source = inspect.getsource(record)
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)", source, re.M))
    lines = "\n"
    for field in record._fields:  # type: ignore[attr-defined]
        comment = re.sub(r"[*|]", r"\\\g<0>", comments.get(field, ""))
        lines += f"   * ``{field}``{': ' if comment else ''}{comment}\n"
    properties = [x for x, part in vars(record).items() if isinstance(part, property)]
    return lines + "".join(f"\n   .. autoproperty:: {x}\n" for x in properties)


def _members(value: type) -> str:
    """What the class itself says something about."""
    called = "   :special-members: __call__\n" if "__call__" in vars(value) else ""
    return f"   :members:\n{called}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
