"""The page of claims: what papers say, what was measured here, and what follows.

    python -m benchmarks.claims         # benchmarks/results/claims.md, anew

It is made of every `claim.csv` in `benchmarks/results`, which the studies write, and of
nothing else: what stands on the page before and after the two lines of comment is
written by hand, and names no number of ours.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.report import page
from benchmarks.tables import table
from mtl_optax.study.report.claims import FILE, RULE, Claim, Measured, number, says
from mtl_optax.study.report.claims import verdict as of_all

RESULTS = Path(__file__).parent / "results"
PAGE = RESULTS / "claims.md"
BEGIN = "<!-- Made by `python -m benchmarks.claims`; what is written here is lost. -->"
TITLE = "Twelve claims"


class Tested(NamedTuple):
    """A claim, where its file lies, and what was measured."""

    folder: Path
    claim: Claim
    measured: list[Measured]

    @property
    def heading(self) -> str:
        """Of its section."""
        return f"{self.claim.number}. {self.claim.title}: {of_all(self.measured)}"


def read(results: Path) -> list[Tested]:
    """Every claim, in order of their numbers; a file may hold several."""
    found: dict[Claim, Tested] = {}
    for path in sorted(results.rglob(FILE)):
        # Text by default: an empty unit, or a nan, is what the file says.
        for row in pd.read_csv(path, dtype=str, keep_default_na=False).to_dict(
            "records"
        ):
            claim, own = _of(Claim, row), _of(Measured, row)
            if own.verdict != row["verdict"]:
                raise ValueError(
                    f"{path} says that {own.what} {row['verdict']}, and the rule now "
                    f"that it {own.verdict}: run the study again."
                )
            found.setdefault(claim, Tested(path.parent, claim, [])).measured.append(own)
    return sorted(found.values(), key=lambda own: own.claim.number)


def _of(kind: Any, row: dict[str, str]) -> Any:
    """The tuple of this kind, its fields in their types."""
    return kind(**{name: of(row[name]) for name, of in kind.__annotations__.items()})


def made(results: Path) -> str:
    """What stands between the two lines of comment."""
    every = read(results)
    rows = [
        [
            str(own.claim.number),
            f"[{own.claim.title}](#{_anchor(own.heading)})",
            of_all(own.measured),
            f"`mtl-optax study {own.claim.study}`",
        ]
        for own in every
    ]
    head = ["", "claim", "verdict", "command"]
    sections = [_section(results, own) for own in every]
    return "\n\n".join([RULE, table(head, rows), *sections])


def _section(results: Path, own: Tested) -> str:
    """One claim: its wording, and all that was measured."""
    claim, place = own.claim, own.folder.relative_to(results).as_posix()
    rows = [[x.what, number(x), says(x), str(x.runs), x.verdict] for x in own.measured]
    return "\n\n".join(
        [
            f"## {own.heading}",
            claim.wording,
            f"Source: {claim.source}. Read: {claim.read}. Results: "
            f"[{place}]({place}/README.md).",
            table(["measured", "found [95 %]", "claimed", "runs", "verdict"], rows),
        ]
    )


def _anchor(heading: str) -> str:
    """As GitHub and Sphinx name a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def main(argv: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(argv)
    old = PAGE.read_text("utf-8") if PAGE.exists() else None
    PAGE.write_text(page(old, TITLE, made(RESULTS), PAGE.name, BEGIN), "utf-8")
    print(f"Written: {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
