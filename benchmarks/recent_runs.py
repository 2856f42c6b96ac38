"""Several runs of the study of recent methods as one: methods that came later.

The same settings and versions, and the same numbers wherever two have a method in
common (each has `unitary`), or they are refused.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from benchmarks.studies.recent.measured import RUNS, read
from benchmarks.studies.recent.study import STUDY
from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.report.files import write_json
from mtl_optax.study.report.rules import statement_against

# Of config.json: what numbers depend on, and what is of each method
ALIKE = (
    *("study", "part", "title", "seeds", "tuning_seeds", "steps", "optimizer"),
    *("learning_rates", "schedule", "batch_size", "precision", "loss_scales", "tasks"),
    *("metrics", "baseline", "reported_on", "versions", "device", "quick"),
)
OF_METHODS = "chosen_rates", "chosen_settings", "verdicts", "seconds"
ORDER = STUDY.parts[0].settings.methods


def joined(folders: Sequence[Path], out: Path) -> None:
    """One result of several runs of a part."""
    configs = [json.loads((x / "config.json").read_text("utf-8")) for x in folders]
    for folder, config in zip(folders, configs, strict=True):
        for key in ALIKE:
            if config[key] != configs[0][key]:
                raise ValueError(
                    f"{folder} and {folders[0]} differ in {key}: {config[key]} and "
                    f"{configs[0][key]}. Join runs with the same settings."
                )
    out.mkdir(parents=True, exist_ok=True)
    for name in (RUNS, "summary.csv"):
        whole = together([x / name for x in folders])
        whole.to_csv(out / name, index=False, lineterminator="\n")
    whole = dict(configs[0])
    for key in OF_METHODS:
        every = {name: x for config in configs for name, x in config[key].items()}
        whole[key] = {name: every[name] for name in ORDER if name in every}
    whole["methods"] = list(whole["verdicts"])
    whole["command"] = list(dict.fromkeys(config["command"] for config in configs))
    whole["wall_seconds"] = round(sum(config["wall_seconds"] for config in configs), 1)
    write_json(out / "config.json", whole)
    whole["statement"] = _statement(out, Metric(**whole["metrics"][0]))
    write_json(out / "config.json", whole)


def together(files: Sequence[Path]) -> pd.DataFrame:
    """All rows of CSV files as they are written; those of one method once."""
    found: dict[str, pd.DataFrame] = {}
    for file in files:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
        for name, own in rows.groupby("method", sort=False):
            own = own.reset_index(drop=True)
            if not found.setdefault(str(name), own).equals(own):
                raise ValueError(
                    f"{file} has other numbers of {name} than the runs before it. Join "
                    f"runs of the same code and versions, or leave one of them out."
                )
    return pd.concat([found[name] for name in ORDER if name in found])


def _statement(folder: Path, metric: Metric) -> str:
    own = read(folder)
    results: Any = {
        name: SimpleNamespace(score=score, metric=metric)
        for name, score in own.scores.items()
    }
    return statement_against(results, own.tasks)
