"""Docstrings as plain text, by section."""

import re

_HEAD = re.compile(
    r"(Args|Returns|Raises|Cost|Invariances|Guarantee|When not to use it|Example|"
    r"References):(?: |$)"
)
_MATHS = (
    *((r"\\langle ?", "⟨"), (r" ?\\rangle", "⟩"), (r"\\ge\b", "≥"), (r"\\le\b", "≤")),
    *((r"\\\|", "‖"), (r":math:`([^`]*)`", r"\1")),
)


def sections(text: str) -> dict[str, str]:
    """Head -> text on one line; the description, without formulas, under ""."""
    parts: dict[str, list[str]] = {"": []}
    name, formula = "", False
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name, line, formula = head[1], line[head.end() :], False
            parts[name] = []
        if line.startswith(".. math::"):
            formula = True
        elif line and not line.startswith(" "):
            formula = False
        if not formula:
            parts[name].append(line)
    return {name: " ".join(" ".join(x).split()) for name, x in parts.items()}


def plain(text: str) -> str:
    """Without markup for mathematics."""
    for pattern, sign in _MATHS:
        text = re.sub(pattern, sign, text)
    return text
