"""What stands elsewhere in the repository, put into pages where a comment asks for it.

`<!-- README: From A to B -->` is README from the line that begins with A, which is left
out if it is a heading, to the next that begins with B;
`<!-- findings -->` is what the scripts in findings/ say at their head.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

ASKS = re.compile(r"<!-- (README: From (?P<start>.*) to (?P<end>.*)|findings) -->")
LINK = re.compile(r"\]\((?![a-z]+:|#)")


def insert(app: Sphinx, name: str, source: list[str]) -> None:
    """Called with each page as it is read; asks stand in docs/ only."""
    root = Path(app.srcdir)

    def text(ask: re.Match[str]) -> str:
        if ask["start"]:
            app.env.note_dependency(root / "README.md")
            return _readme(root, ask["start"], ask["end"])
        return _findings(app, root)

    if name.startswith("docs/"):
        source[0] = ASKS.sub(text, source[0])


def _readme(root: Path, start: str, end: str) -> str:
    readme = (root / "README.md").read_text("utf-8")
    begin = readme.find(f"\n{start}")
    until = readme.find(f"\n{end}", begin)
    if min(begin, until) < 0:
        raise ValueError(f"README.md has no lines that begin with {start!r}, {end!r}")
    part = readme[begin:until].lstrip("\n")
    if part.startswith("#"):  # the page has a head of its own
        part = part.partition("\n")[2]
    return LINK.sub("](../", part)


HEADS = ["Package", "Expected", "Seen", "What it did here"]
HEAD = re.compile(rf"^({'|'.join(HEADS)}): ", re.M)


def _findings(app: Sphinx, root: Path) -> str:
    parts = []
    for path in sorted((root / "findings").glob("*.sh")):
        app.env.note_dependency(path)
        _, *comment = re.match(r"(#.*\n)+", path.read_text("utf-8"))[0].splitlines()
        words = "\n".join(line[2:] for line in comment).partition("\nFails if")[0]
        title, *said = HEAD.split(words)
        if said[::2] != HEADS:
            raise ValueError(f"{path}: after the title come {HEADS}, not {said[::2]}")
        parts += [f"## {' '.join(title.split()).rstrip('.')}", ""]
        for head, text in zip(said[::2], said[1::2], strict=True):
            parts.append(f"* **{head}**: {' '.join(text.split())}")
        parts += [f"* **Script**: [{path.name}](../findings/{path.name})", ""]
    return "\n".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
