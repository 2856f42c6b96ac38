"""The table of the stress study over the whole catalogue, from what the run wrote.

    python -m benchmarks.stress_table                   # table and picture, anew
    python -m benchmarks.stress_table results/stress ...    # of these runs

`summary.csv` and `config.json` of `mtl-optax study stress`, or of several runs joined,
are all that it is made of; the text around it is written by hand.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.join_runs import joined
from benchmarks.report import page
from benchmarks.tables import table
from mtl_optax.study.engine.methods import METHODS, SINGLE_TASK
from mtl_optax.study.report import claims
from mtl_optax.study.report.frame import Drawn, png, rows
from mtl_optax.study.studies.stress.claim import CLAIM, measured

RESULTS = Path(__file__).parent / "results" / "stress"
BEGIN = (
    "<!-- Made by `python -m benchmarks.stress_table`; what you write here is lost. -->"
)
COLOUR = "#0072B2"
# As they stand in the table
VERDICTS = "invariant", "robust", "over-corrects", "dominated", "fails", "reference"


def read(results: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The configuration, and the means by method, scale and task."""
    config = json.loads((results / "config.json").read_text("utf-8"))
    means = pd.read_csv(results / "summary.csv", dtype={"method": str})
    return config, means.set_index(["method", "scale", "task"]).sort_index()


def made(results: Path) -> str:
    """When and with what it was run, the table, and what holds at equal scales."""
    config, means = read(results)
    pairs = [
        (scale, task) for scale in config["loss_scales"] for task in config["tasks"]
    ]
    lines = []
    for method in in_order(config):
        own = (means.loc[(method, *pair)] for pair in pairs)
        cells = [f"{x['mean']:.1f} ± {x['sd']:.1f}" for x in own]
        rates = ", ".join(f"{rate:g}" for rate in config["chosen_rates"][method])
        lines.append([f"`{method}`", *cells, rates, config["verdicts"][method]])
    scales = ", ".join(f"×{scale}" for scale in config["loss_scales"])
    heads = [f"{task} ×{scale}" for scale, task in pairs]
    head = ["method", *heads, f"rate {scales}", "verdict"]
    return "\n\n".join([_how(config), table(head, lines), config["statement"]])


def in_order(config: dict[str, Any]) -> list[str]:
    """The methods by verdict."""
    verdicts = config["verdicts"]
    return sorted(config["methods"], key=lambda x: VERDICTS.index(verdicts[x]))


def accuracy(results: Path) -> Drawn:
    """A panel a task, a row a method: hollow at scale 1, else filled."""
    config, means = read(results)
    methods, tasks = in_order(config), tuple(config["tasks"])
    figure, axes = rows(methods, tasks)
    for ax, task in zip(axes, tasks, strict=True):
        for scale, face in zip(
            config["loss_scales"], ("white", "#0072B2"), strict=True
        ):
            own = means.loc[[(method, scale, task) for method in methods]]
            ax.errorbar(
                *(own["mean"], range(len(methods))),
                xerr=own["sd"],
                **{"fmt": "o", "color": "#0072B2", "markerfacecolor": face},
                **{"markersize": 5, "capsize": 2, "label": f"loss scale ×{scale}"},
            )
        ax.set(title=task, xlabel="test accuracy / %")
    axes[0].legend(loc="lower left")
    return Drawn(figure, "Bars, where wider than the dot, are ± 1 sd over seeds.")


def _how(config: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in config["versions"].items())
    number = sum(method != SINGLE_TASK for method in config["methods"])
    runs = config["command"] if isinstance(config["command"], list) else []
    joined = f" Joined from {len(runs)} runs, see `config.json`." if runs[1:] else ""
    return (
        f"{number} methods and {SINGLE_TASK}; {versions}; {config['device']}, "
        f"{config['cpu_count']} cores, {config['wall_seconds']:.0f} s, not alone."
        f"{joined}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of the study")
    parser.add_argument("--out", type=Path, default=RESULTS, help="of the page")
    options = parser.parse_args(argv)
    if options.runs:
        joined(options.runs, options.out, METHODS)
    target = options.out / "README.md"
    text = page(target.read_text("utf-8"), "", made(options.out), target.name, BEGIN)
    target.write_text(text, "utf-8")
    said = claims.files(CLAIM, measured(pd.read_csv(options.out / "summary.csv")))
    for name, own in said.items():
        own.to_csv(options.out / name, index=False, lineterminator="\n")
    drawn = png(accuracy, options.out)
    assert drawn is not None
    (options.out / "accuracy.png").write_bytes(drawn[0])
    print(f"Written: {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
