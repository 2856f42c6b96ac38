"""The page on recent methods: what their papers claim, and what the study measured.

    python -m benchmarks.recent                        # page and picture, anew
    python -m benchmarks.recent results/recent ...     # of these runs of the study

What stands before and after the two lines of comment on the page is written by hand;
it names no number of ours.
"""

import argparse
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.join_runs import joined
from benchmarks.report import page
from benchmarks.studies.recent import tables
from benchmarks.studies.recent.figures import worst
from benchmarks.studies.recent.measured import read
from benchmarks.studies.recent.rule import RULE
from benchmarks.studies.recent.study import STUDY
from benchmarks.studies.recent.tried import NEW
from benchmarks.tables import table
from mtl_optax.catalogue.methods import methods
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.frame import png
from mtl_optax.study.report.scale_rule import RULE as OF_SCALES

RESULTS = Path(__file__).parent / "results" / "recent"
CLAIMS = Path(__file__).parent / "studies" / "recent" / "claims.toml"
BEGIN = "<!-- Made by `python -m benchmarks.recent`; what is written here is lost. -->"
ORDER = STUDY.parts[0].settings.methods
TITLE = "Recent methods: what their papers claim, and what they do here"


def measured(results: Path) -> tables.Parts:
    """What the files of all parts say."""
    return {part.name: read(results / part.name) for part in STUDY.parts}


def made(results: Path) -> str:
    """What stands between the two lines of comment."""
    parts = measured(results)
    verdicts, beside = tables.verdicts(parts), tables.beside(parts)
    blocks = [
        *(_how(results), RULE, OF_SCALES, tables.statement(parts)),
        *(f"## {verdicts.title}", _table(verdicts)),
        "![Worst task of each method at both scales](worst.png)",
        *(f"## {beside.title}", beside.note, _table(beside)),
        *("## Each method", tables.NOTE),
    ]
    for name in tables.new_in(parts):
        table_of = _table(tables.of_method(parts, name))
        blocks += [f"### {name}", _said(name, parts), table_of]
    return "\n\n".join(blocks)


def _said(name: str, parts: tables.Parts) -> str:
    """What the source claims, what a step costs, and what a large loss does."""
    claim = tomllib.loads(CLAIMS.read_text("utf-8"))[name]
    cost = {row.name: row.passes for row in methods()}[name]
    grid = "".join(f"; {k} of {_values(v)}" for k, v in NEW[name].grid.items())
    words = (f"{own.verdicts[name]} (T={len(own.tasks)})" for own in parts.values())
    large = next(iter(parts.values())).scales[-1]
    points = {
        "Source": claim["source"],
        "Claims": f"{claim['claim']} (read: {claim['read']})",
        "Cost of a step": cost,
        "Tuned": f"the rate{grid}",
        f"One loss times {large}": ", ".join(words),
    }
    return "\n".join(f"* **{head}**: {text}." for head, text in points.items())


def _how(results: Path) -> str:
    """Settings, from the files."""
    config = json.loads((results / STUDY.parts[0].name / "config.json").read_text())
    last = len(config["seeds"]) - 1
    first, number = last + 1, config["tuning_seeds"]
    versions = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    runs = config["command"] if isinstance(config["command"], list) else []
    joined = f" Joined from {len(runs)} runs, see `config.json`." if runs[1:] else ""
    return (
        f"{config['optimizer'].capitalize()}, {config['steps']} steps, batch "
        f"{config['batch_size']}, {config['schedule']}; seeds 0 to {last}, test data. "
        f"Rate (of {_values(config['learning_rates'])}) and own setting are those with "
        f"the best validation accuracy on seeds {first} to {first + number - 1}, for "
        f"each method, number of tasks and scale. {versions}; {config['device']}."
        f"{joined}"
    )


def _values(values: Sequence[float]) -> str:
    return ", ".join(f"{x:g}" for x in values)


def _table(said: Table) -> str:
    rows = [[f"`{name}`" if name in ORDER else name, *x] for name, *x in said.rows]
    return table(said.head, rows)


def write(results: Path) -> None:
    """The page, and the picture beside it."""
    target = results / "README.md"
    old = target.read_text("utf-8") if target.exists() else None
    target.write_text(page(old, TITLE, made(results), target.name, BEGIN), "utf-8")
    drawn = png(worst, measured(results))
    assert drawn is not None
    (results / "worst.png").write_bytes(drawn[0])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of the study")
    parser.add_argument("--out", type=Path, default=RESULTS, help="of the page")
    options = parser.parse_args(argv)
    if options.runs:
        for part in STUDY.parts:
            folders = [run / part.name for run in options.runs]
            joined(folders, options.out / part.name, ORDER)
    write(options.out)
    print(f"Written: {options.out / 'README.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
