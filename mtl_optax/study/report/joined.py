"""Several results folders in one document: what `mtl-optax report` writes.

Results of the same study, part, tasks and scales share a table; each folder then has a
section with its statement and pictures. All that is said of them is in config.json and
summary.csv; those of earlier versions are read too, which did not record the unit of a
metric, nor the credits of the data.
"""

import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mtl_optax.study.engine.problem import Metric
from mtl_optax.study.report.document import (
    Details,
    Document,
    Figure,
    Heading,
    Table,
    Text,
)
from mtl_optax.study.report.styles import styles

# Of config.json, beside what is read at once
NEEDED = (
    *("study", "methods", "tasks", "loss_scales", "reported_on", "optimizer", "steps"),
    *("verdicts", "statement", "command"),
)


class Unreadable(ValueError):
    """A folder that holds no results."""


class Folder(NamedTuple):
    """What a part has written."""

    path: Path
    config: dict[str, Any]
    means: pd.DataFrame  # of the first metric: method, scale, task, mean, sd, ...
    metric: Metric

    @property
    def key(self) -> tuple[Any, ...]:
        """What those in one table have in common."""
        study, split = self.config["study"], self.config["reported_on"]
        name = self.config.get("part", study)
        if name == self.config["optimizer"]:  # the same part, and a column tells it
            name = study
        tasks, scales = (tuple(self.config[x]) for x in ("tasks", "loss_scales"))
        return study, name, tasks, scales, self.metric.name, split

    @property
    def unit(self) -> str | None:
        """Of the metric; None if an earlier version did not record it."""
        first = self.config["metrics"][0]
        return None if isinstance(first, str) else self.metric.unit


def read(path: Path) -> Folder:
    """The results in a folder; `Unreadable` if there are none."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if "parts" in config:
            names = ", ".join(config["parts"])
            raise Unreadable(f"{path} has parts; name them instead: {names}")
        first = config["metrics"][0]
        metric = Metric(first, "") if isinstance(first, str) else Metric(**first)
        missing = [key for key in NEEDED if key not in config]
        if missing:
            raise ValueError(f"config.json has no {', '.join(missing)}")
        table = _summary(path / "summary.csv")
        means = table[table["metric"] == metric.name]
        wanted = set(product(config["loss_scales"], config["tasks"]))
        for method in config["methods"]:
            own = means[means["method"] == method]
            pairs = list(zip(own["scale"], own["task"], strict=True))
            if len(pairs) != len(wanted) or set(pairs) != wanted:
                raise Unreadable(f"{path}: numbers of {method} are missing")
        return Folder(path, config, means, metric)
    except Unreadable:
        raise
    except FileNotFoundError as error:
        raise Unreadable(f"{error.filename} is missing") from None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"{path} holds no results of this version: {error}") from None


def _summary(file: Path) -> pd.DataFrame:
    """Names are kept as they are: a task may be called 1, or null."""
    names = ("method", "task", "metric", "candidate", "learning_rate")
    numbers = ("scale", "seeds", "mean", "sd")
    table = pd.read_csv(
        file,
        usecols=lambda column: column in (*names, *numbers),
        dtype=dict.fromkeys(names, str),
        na_values={number: ["", "nan"] for number in numbers},
        keep_default_na=False,
    )
    return table.rename(columns={"learning_rate": "candidate"})


def join(folders: list[Folder]) -> Document:
    """The document on all."""
    units: dict[Any, str] = {}  # of each key, where it is known
    for folder in folders:
        if folder.unit is not None:
            units.setdefault(folder.key, folder.unit)
    groups = defaultdict(list)
    for folder in folders:
        unit = units.get(folder.key) if folder.unit is None else folder.unit
        groups[folder.key, unit].append(folder)
    body = [_together(group) for group in groups.values()]
    for folder in folders:
        body += _section(folder)
    credits = dict.fromkeys(folder.config.get("credits", "") for folder in folders)
    return Document(
        title=f"{len(folders)} results",
        question="",
        summary=[],
        body=body,
        credits=[text for text in credits if text],
    )


def _together(folders: list[Folder]) -> Table:
    first = next((x for x in folders if x.unit is not None), folders[0])
    study, name, tasks, scales, _, split = first.key
    several = len(scales) > 1
    rows = [
        _row(folder, method, list(tasks), list(scales))
        for folder in folders
        for method in dict.fromkeys(folder.means["method"])
    ]
    heads = [f"{t} ×{s}" if several else t for s in scales for t in tasks]
    return Table(
        study if name == study else f"{study}, {name}",
        f"{split.capitalize()} {first.metric}, mean ± sd over seeds.",
        [
            "method",
            "results",
            "optimiser",
            "chosen",
            "seeds",
            "steps",
            *heads,
            "verdict",
        ],
        rows,
        styles(row[0] for row in rows),
    )


def _row(folder: Folder, method: str, tasks: list[str], scales: list[Any]) -> list[str]:
    own = folder.means[folder.means["method"] == method]
    cells = own.set_index(["scale", "task"]).loc[
        [(s, t) for s in scales for t in tasks]
    ]
    config = folder.config
    # Earlier versions, which recorded no unit, had percents in nearly every study.
    digits = 1 if folder.unit is None else folder.metric.digits
    return [
        *(method, str(folder.path), config["optimizer"]),
        ", ".join(dict.fromkeys(map(str, own["candidate"]))),
        *(str(own["seeds"].iloc[0]), str(config["steps"])),
        *(
            f"{mean:.{digits}f}" + ("" if pd.isna(sd) else f" ± {sd:.{digits}f}")
            for mean, sd in zip(cells["mean"], cells["sd"], strict=True)
        ),
        config["verdicts"].get(method, ""),
    ]


def _section(folder: Folder) -> list[Any]:
    pictures = [
        Figure(file.stem, file.read_bytes(), file.stem.replace("_", " "))
        for file in sorted(folder.path.glob("*.png"))
    ]
    configuration = json.dumps(folder.config, indent=2)
    return [
        Heading(str(folder.path)),
        Text(folder.config["command"], "code"),
        Text(folder.config["statement"]),
        *pictures,
        Details("Configuration", [Text(configuration, "code")]),
    ]
