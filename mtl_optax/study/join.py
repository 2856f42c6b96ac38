"""Several results folders on one page: what `mtl-optax report` writes.

Results of the same study, tasks and scales share a table; each folder then has a
section with its statement and figures.
"""

import csv
import json
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study import screen
from mtl_optax.study.data import CREDITS
from mtl_optax.study.page import figure, page, table


class Unreadable(ValueError):
    """A folder that holds no results."""


class Folder(NamedTuple):
    """What a study has written."""

    path: Path
    config: dict[str, Any]
    scores: dict[str, NDArray]  # method -> [scales, seeds, T], at the chosen rates


def read(path: Path) -> Folder:
    """The results in a folder; `Unreadable` if there are none."""
    try:
        config = json.loads((path / "config.json").read_text())
        if config["study"] == "toy":
            raise Unreadable(f"{path} holds the toy, whose report stands alone")
        if "parts" in config:
            names = ", ".join(config["parts"])
            raise Unreadable(f"{path} has parts; name them instead: {names}")
        with open(path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return Folder(path, config, _scores(config, rows))
    except Unreadable:
        raise
    except FileNotFoundError as error:
        raise Unreadable(f"{error.filename} is missing") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"{path} holds no results of this version: {error}") from None


def join(folders: list[Folder]) -> str:
    """The page."""
    groups = defaultdict(list)
    for folder in folders:
        config = folder.config
        key = config["study"], tuple(config["tasks"]), tuple(config["loss_scales"])
        groups[key].append(folder)
    body = [_together(*key, group) for key, group in groups.items()]
    body += [_section(folder) for folder in folders]
    body.append(f"<footer><p>{escape(CREDITS)}</p></footer>")
    return page(f"{len(folders)} results", "\n".join(body))


def _scores(config: dict[str, Any], rows: list[dict[str, str]]) -> dict[str, NDArray]:
    scales, seeds, tasks = config["loss_scales"], config["seeds"], config["tasks"]
    shape = len(scales), len(seeds), len(tasks)
    scores = {method: np.full(shape, np.nan) for method in config["methods"]}
    for row in rows:
        if row["split"] == config["reported_on"] and row["chosen"] == "1":
            scale = [str(x) for x in scales].index(row["scale"])
            at = scale, seeds.index(int(row["seed"])), tasks.index(row["task"])
            scores[row["method"]][at] = float(row[config["metrics"][0]])
    for method, values in scores.items():
        if np.isnan(values).any():
            raise ValueError(f"numbers of {method} are missing")
    return scores


def _together(
    study: str, tasks: tuple[str, ...], scales: tuple[int, ...], folders: list[Folder]
) -> str:
    rows = [
        (
            method,
            [
                str(folder.path),
                *(folder.config["optimizer"], _rates(folder, method)),
                *(str(len(folder.config["seeds"])), str(folder.config["steps"])),
                *screen.cells(score),
                folder.config["verdicts"][method],
            ],
        )
        for folder in folders
        for method, score in folder.scores.items()
    ]
    settings = ["results", "optimiser", "rate", "seeds", "steps"]
    head = ["method", *settings, *screen.columns(scales, tasks), "verdict"]
    return (
        f"<h2>{escape(study)}</h2>"
        f'<p class="small">Test accuracy in percent, mean ± sd over seeds.</p>'
        f"{table(head, rows)}"
    )


def _rates(folder: Folder, method: str) -> str:
    rates = dict.fromkeys(folder.config["chosen_rates"][method])
    return ", ".join(f"{rate:g}" for rate in rates)


def _section(folder: Folder) -> str:
    config = folder.config
    pictures = sorted(folder.path.glob("*.png"))
    return (
        f"<h2>{escape(str(folder.path))}</h2>"
        f"<p><code>{escape(config['command'])}</code></p>"
        f"<p>{escape(config['statement'])}</p>"
        f"{''.join(figure(file, file.stem) for file in pictures)}"
        f"<details><summary>Configuration</summary>"
        f'<pre class="small table">{escape(json.dumps(config, indent=2))}</pre>'
        f"</details>"
    )
