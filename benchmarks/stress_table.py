"""The table of the stress study over the whole catalogue, from what the run wrote.

    python -m benchmarks.stress_table        # results/stress/README.md, anew

`summary.csv` and `config.json` of `mtl-optax study stress` are all that it is made of;
the text around it is written by hand.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.report import page
from benchmarks.tables import table
from mtl_optax.study.engine.methods import SINGLE_TASK

RESULTS = Path(__file__).parent / "results" / "stress"
BEGIN = (
    "<!-- Made by `python -m benchmarks.stress_table`; what you write here is lost. -->"
)
# As they stand in the table
VERDICTS = "invariant", "robust", "over-corrects", "dominated", "fails", "reference"


def made(results: Path) -> str:
    """When and with what it was run, the table, and what holds at equal scales."""
    config = json.loads((results / "config.json").read_text("utf-8"))
    means = pd.read_csv(results / "summary.csv", dtype={"method": str})
    means = means.set_index(["method", "scale", "task"]).sort_index()
    pairs = [
        (scale, task) for scale in config["loss_scales"] for task in config["tasks"]
    ]
    verdicts, rows = config["verdicts"], []
    for method in sorted(config["methods"], key=lambda x: VERDICTS.index(verdicts[x])):
        own = (means.loc[(method, *pair)] for pair in pairs)
        cells = [f"{x['mean']:.1f} ± {x['sd']:.1f}" for x in own]
        rates = ", ".join(f"{rate:g}" for rate in config["chosen_rates"][method])
        rows.append([f"`{method}`", *cells, rates, verdicts[method]])
    scales = ", ".join(f"×{scale}" for scale in config["loss_scales"])
    heads = [f"{task} ×{scale}" for scale, task in pairs]
    head = ["method", *heads, f"rate {scales}", "verdict"]
    return "\n\n".join([_how(config), table(head, rows), config["statement"]])


def _how(config: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    number = sum(method != SINGLE_TASK for method in config["methods"])
    return (
        f"{number} methods and {SINGLE_TASK}; {versions}; {config['device']}, "
        f"{config['cpu_count']} cores, {config['wall_seconds']:.0f} s, not alone."
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="of the run")
    results = parser.parse_args(argv).results
    target = results / "README.md"
    text = page(target.read_text("utf-8"), "", made(results), target.name, BEGIN)
    target.write_text(text, "utf-8")
    print(f"Written: {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
