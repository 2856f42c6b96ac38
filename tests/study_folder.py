"""What a folder of a study's results must hold."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jax

import mtl_optax
from mtl_optax.study.engine import methods
from mtl_optax.study.engine.settings import Settings
from mtl_optax.study.report import files, one

ROOT = Path(__file__).resolve().parents[1]
TINY = Settings(("unitary", methods.SINGLE_TASK), seeds=2, steps=2)


class References(HTMLParser):
    """Everything that a page would load or link to."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.found += [value for name, value in attrs if name in ("src", "href")]


def write(folder, results, command="mtl-optax study"):
    """As the command does; returns the document."""
    configuration = files.config(results, command, 1.0)
    document = one.document(results, configuration)
    files.write(folder, document)
    files.write_json(folder / "config.json", configuration)
    return document


def check_folder(folder, names, seeds):
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*files.KEY, "accuracy")
    keys = {tuple(row[c] for c in files.KEY) for row in rows}
    assert len(keys) == len(rows) == len(names) * 2 * seeds * 2 * 2
    assert {row["method"] for row in rows} == set(names)
    assert {row["scale"] for row in rows} == {"1", "1000"}
    assert {row["split"] for row in rows} == {"val", "test"}
    assert all(0 <= float(row["accuracy"]) <= 100 for row in rows)

    config = json.loads((folder / "config.json").read_text())
    assert config["versions"]["mtl_optax"] == mtl_optax.__version__
    assert config["versions"]["jax"] == jax.__version__
    assert config["seeds"] == list(range(seeds))
    for key in ("device", "steps", "learning_rates", "command"):
        assert config[key]

    compared = seeds > 1 and "unitary" in names and len(names) > 1
    # The share of a method whose weights do not tell it is not known.
    figures = {"accuracy", "losses"} | ({"differences"} if compared else set())
    untold = {"graddrop", "db_mtl", "metabalance", "single_task"}
    figures |= {"shares"} if set(names) - untold else set()
    assert {path.stem for path in folder.glob("*.png")} == figures
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names) * 2 * 2
    assert {row["seeds"] for row in rows} == {str(seeds)}
    assert any(row["t_low"] for row in rows) == compared
    page = (folder / "report.html").read_text(encoding="utf-8")
    loaded = References(page)
    assert len(loaded.found) == len(figures)
    assert all(value.startswith("data:image/png;base64,") for value in loaded.found)
    assert not loaded.tags & {"script", "link", "iframe"}
    assert not re.search(r"url\(|@import", page)
    assert "Alpaydin" in page
    assert "CC BY 4.0" in page
