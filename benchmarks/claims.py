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
from typing import Any

import pandas as pd

from benchmarks.report import page
from benchmarks.tables import table
from mtl_optax.study.report.claims import FILE, RULE, Claim, Measured, number, says
from mtl_optax.study.report.claims import verdict as of_all

RESULTS = Path(__file__).parent / "results"
PAGE = RESULTS / "claims.md"
BEGIN = "<!-- Made by `python -m benchmarks.claims`; what is written here is lost. -->"
TITLE = "Twelve claims"


def read(results: Path) -> dict[Path, tuple[Claim, list[Measured]]]:
    """Every claim with its measurements, by folder, in order of their numbers."""
    found = {}
    for path in results.rglob(FILE):
        # Text by default: an empty unit, or a nan, is what the file says.
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        claim, *_ = (_of(Claim, row) for row in rows)
        measured = [_of(Measured, row) for row in rows]
        for own, row in zip(measured, rows, strict=True):
            if own.verdict != row["verdict"]:
                raise ValueError(
                    f"{path} says that {own.what} {row['verdict']}, and the rule now "
                    f"that it {own.verdict}: run the study again."
                )
        found[path.parent] = claim, measured
    return dict(sorted(found.items(), key=lambda pair: pair[1][0].number))


def _of(kind: Any, row: dict[str, str]) -> Any:
    """The tuple of this kind, its fields in their types."""
    return kind(**{name: of(row[name]) for name, of in kind.__annotations__.items()})


def made(results: Path) -> str:
    """What stands between the two lines of comment."""
    every = read(results)
    rows = [
        [
            str(claim.number),
            f"[{claim.title}](#{_anchor(_heading(claim, measured))})",
            of_all(measured),
            f"`mtl-optax study {claim.study}`",
        ]
        for claim, measured in every.values()
    ]
    sections = [_section(results, folder, *own) for folder, own in every.items()]
    head = ["", "claim", "verdict", "command"]
    return "\n\n".join([RULE, table(head, rows), *sections])


def _section(
    results: Path, folder: Path, claim: Claim, measured: Sequence[Measured]
) -> str:
    """One claim: its wording, and all that was measured."""
    place = folder.relative_to(results).as_posix()
    rows = [
        [own.what, number(own), says(own), str(own.runs), own.verdict]
        for own in measured
    ]
    return "\n\n".join(
        [
            f"## {_heading(claim, measured)}",
            f"{claim.wording}",
            f"Source: {claim.source}. Read: {claim.read}. Results: "
            f"[{place}]({place}/README.md).",
            table(["measured", "found [95 %]", "claimed", "runs", "verdict"], rows),
        ]
    )


def _heading(claim: Claim, measured: Sequence[Measured]) -> str:
    return f"{claim.number}. {claim.title}: {of_all(measured)}"


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
