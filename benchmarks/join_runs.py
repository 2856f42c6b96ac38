"""Several runs of a part of a study as one: of methods that came, or changed, later.

The same settings and versions, and the same numbers of the method that all are paired
with, or they are refused. Of a method that stands in several runs the last one counts.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.report.files import write_json
from mtl_optax.study.report.paired import CONFIDENCE, bracket

FILES = "summary.csv", "runs.csv"  # the second where the study has it
# Of config.json: what numbers depend on, and what is of each method
ALIKE = (
    *("study", "part", "title", "seeds", "tuning_seeds", "steps", "optimizer"),
    *("learning_rates", "schedule", "batch_size", "precision", "loss_scales", "tasks"),
    *("metrics", "baseline", "reported_on", "versions", "device", "quick"),
)
OF_METHODS = "chosen_rates", "chosen_settings", "verdicts", "seconds"


def joined(folders: Sequence[Path], out: Path, order: Iterable[str]) -> None:
    """One result of all folders, with the methods in this order."""
    configs = [json.loads((x / "config.json").read_text("utf-8")) for x in folders]
    for folder, config in zip(folders, configs, strict=True):
        for key in ALIKE:
            if config[key] != configs[0][key]:
                raise ValueError(
                    f"{folder} and {folders[0]} differ in {key}: {config[key]} and "
                    f"{configs[0][key]}. Join runs with the same settings."
                )
    whole = dict(configs[0])
    for key in OF_METHODS:
        every = {name: x for config in configs for name, x in config[key].items()}
        whole[key] = {name: every[name] for name in order if name in every}
    whole["methods"] = list(whole["verdicts"])
    # One, or those of a result that was joined before
    given = (np.atleast_1d(config["command"]) for config in configs)
    commands = (re.sub(r" --out \S+", "", str(x)) for each in given for x in each)
    whole["command"] = list(dict.fromkeys(commands))
    whole["wall_seconds"] = round(sum(config["wall_seconds"] for config in configs), 1)
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folders[0] / name).exists():
            files = [folder / name for folder in folders]
            table = together(files, whole["methods"], whole["baseline"])
            table.to_csv(out / name, index=False, lineterminator="\n")
    whole["statement"] = statement(pd.read_csv(out / FILES[0]), whole)
    write_json(out / "config.json", whole)


def together(
    files: Sequence[Path], methods: Iterable[str], baseline: str
) -> pd.DataFrame:
    """The rows of all methods, as they are written."""
    found: dict[str, pd.DataFrame] = {}
    for file in files:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
        own = {str(x): y.reset_index(drop=True) for x, y in rows.groupby("method")}
        if not own[baseline].equals(found.get(baseline, own[baseline])):
            raise ValueError(
                f"{file} has other numbers of {baseline} than the runs before it, so "
                f"that nothing there can be paired with them. Run these again."
            )
        found |= own
    return pd.concat([found[name] for name in methods])


def statement(summary: pd.DataFrame, config: dict[str, Any]) -> str:
    """As `report.rules.statement_against` has it, of the first scale and metric."""
    metric, unit = config["metrics"][0]["name"], "points"
    at = (summary["scale"] == config["loss_scales"][0]) & (summary["metric"] == metric)
    at &= ~summary["method"].isin([config["baseline"], SINGLE_TASK])
    rows = summary[at]
    apart = rows[(rows["t_low"] > 0) | (rows["t_high"] < 0)]
    found = [
        f"{row.method} on {row.task} ({row.difference:+.2f} "
        f"{bracket(row.t_low, row.t_high)} {unit})"
        for row in apart.itertuples()
    ]
    return (
        f"At equal scales {100 * CONFIDENCE:g} % intervals, paired over "
        f"{len(config['seeds'])} seeds, exclude 0 in {len(found)} of {len(rows)} "
        f"comparisons with {config['baseline']}, by chance in about "
        f"{(1 - CONFIDENCE) * len(rows):.1f}: {', '.join(found) or 'none'}. The "
        f"largest mean difference is {np.abs(rows['difference']).max():.2f} {unit}."
    )
