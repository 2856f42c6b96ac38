"""The folder of a study: its page, pictures, and the numbers as files."""

import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

import mtl_optax
from mtl_optax.study.engine import cache, tidy
from mtl_optax.study.engine.study import PartResult, StudyResult
from mtl_optax.study.report import html
from mtl_optax.study.report.document import Details, Document, Figure
from mtl_optax.study.report.summaries import summary

KEY = [
    "method",
    "scale",
    "learning_rate",
    "settings",
    "chosen",
    "seed",
    "task",
    "split",
]


def write(folder: Path, document: Document) -> None:
    """report.html, its pictures and its tables, into a folder made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(html.page(document), encoding="utf-8")
    for figure in _figures(document.body):
        (folder / f"{figure.name}.png").write_bytes(figure.png)
    for name, table in document.files.items():
        text = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        (folder / name).write_text(text, encoding="utf-8")


def write_json(file: Path, values: dict[str, Any]) -> None:
    """With a line a value."""
    file.write_text(as_json(values) + "\n", encoding="utf-8")


def as_json(values: dict[str, Any]) -> str:
    """Strict JSON: NumPy's numbers as Python's, and null for what is no number."""
    loose = json.dumps(values, default=lambda x: np.asarray(x).tolist())
    plain = json.loads(loose, parse_constant=lambda name: None)
    return json.dumps(plain, indent=2)


def of_part(result: PartResult) -> dict[str, pd.DataFrame]:
    """File name -> table: every run, and the means."""
    return {
        "metrics.csv": metrics(result),
        "summary.csv": summary([result]),
        **result.part.files(result),
    }


def metrics(result: PartResult) -> pd.DataFrame:
    """One row a run, task and split: KEY, then a column a metric of the problem."""
    table = tidy.of_part(result)
    candidate = table["candidate"].str.partition(" ")
    table = table.assign(
        learning_rate=candidate[0],
        settings=candidate[2],
        chosen=table["chosen"].astype(int),
    )
    values = table.set_index([*KEY, "metric"])["value"].unstack("metric", sort=False)
    names = [metric.name for metric in result.problem.metrics]
    # As text: a column with a NaN among numbers would be blank there, or unrounded.
    return values[names].map("{:.4f}".format).reset_index()


def config(result: PartResult, command: str, seconds: float) -> dict[str, Any]:
    """All that is needed to run it again, and how long it took."""
    settings, problem = result.settings, result.problem
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn", "pandas")
    return {
        "study": result.study,
        "part": result.part.name,
        "title": result.part.title,
        "command": command,
        "methods": settings.methods,
        "seeds": list(range(settings.seeds)),
        "tuning_seeds": settings.tuning_seeds,
        "steps": settings.steps,
        "optimizer": settings.optimizer,
        "learning_rates": settings.learning_rates,
        "chosen_rates": {
            method: [candidate.learning_rate for candidate in result.chosen(method)]
            for method in result.methods
        },
        "chosen_settings": {
            method: [candidate.settings for candidate in result.chosen(method)]
            for method in result.methods
            if method in settings.grids
        },
        "schedule": settings.schedule,
        "batch_size": settings.batch_size,
        "precision": problem.precision,
        "loss_scales": result.part.scales,
        "scaled_task": result.tasks[0],
        "tasks": result.tasks,
        "metrics": [metric._asdict() for metric in problem.metrics],
        "losses": [loss._asdict() for loss in problem.loss],
        "baseline": result.part.baseline,
        "reported_on": problem.reported_on,
        **problem.facts,
        "quick": settings.quick,
        "verdicts": result.judgement.verdicts,
        "statement": result.judgement.statement,
        "credits": problem.credits,
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version(), "mtl_optax": mtl_optax.__version__},
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
        "cpu_count": os.cpu_count(),
        "compilation_cache": cache.in_use(),
        "wall_seconds": round(seconds, 1),
        "seconds": {
            method: {
                "compile": round(own.compile_seconds, 2),
                "train": round(own.run_seconds, 2),
            }
            for method, own in result.methods.items()
        },
    }


def config_of_study(result: StudyResult, more: dict[str, Any]) -> dict[str, Any]:
    """What the parts have in common, and each of its own."""
    every = {
        name: config(own, result.command, result.seconds)
        for name, own in result.parts.items()
    }
    apart = ("part", "title", "statement", "verdicts")
    first = next(iter(every.values()))
    common = {
        key: value
        for key, value in first.items()
        if key not in apart and all(x.get(key) == value for x in every.values())
    }
    own = {
        name: {k: v for k, v in values.items() if k not in common}
        for name, values in every.items()
    }
    return {"title": result.study.title, **common, **more, "parts": own}


def _figures(blocks: Iterable[Any]) -> Iterable[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Details):
            yield from _figures(block.blocks)
