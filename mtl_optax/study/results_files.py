"""The numbers of a run as files: metrics.csv and config.json."""

import csv
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import mtl_optax
from mtl_optax.study import cache
from mtl_optax.study.compare import Results
from mtl_optax.study.suite import Whole

COLUMNS = (
    *("method", "scale", "learning_rate", "settings", "chosen", "seed", "task"),
    "split",
)


def write(
    folder: Path, results: Results, command: str, seconds: float
) -> dict[str, Any]:
    """Writes both into the folder, which is made if need be; returns the config."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(metric.name for metric in results.problem.metrics)
    write_csv(folder / "metrics.csv", (*COLUMNS, *names), metrics(results))
    configuration = config(results, command, seconds)
    (folder / "config.json").write_text(json.dumps(configuration, indent=2) + "\n")
    return configuration


def write_csv(path: Path, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table with its head."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def metrics(results: Results) -> list[tuple[Any, ...]]:
    """One row a run, task and split: COLUMNS, then a column a metric."""
    names = [metric.name for metric in results.problem.metrics]
    return [
        (
            *(method, scale, f"{candidate.learning_rate:g}", candidate.more()),
            int(r == outcome.chosen[s]),
            *(seed, task, split),
            *(f"{values[name][r, s, seed, t]:.4f}" for name in names),
        )
        for method, outcome in results.outcomes.items()
        for split, values in outcome.metrics.items()
        for r, candidate in enumerate(results.settings.candidates(method))
        for s, scale in enumerate(results.study.scales)
        for seed in range(results.settings.seeds)
        for t, task in enumerate(results.tasks)
    ]


def config(results: Results, command: str, seconds: float) -> dict[str, Any]:
    """All that is needed to run it again, and how long it took."""
    settings, problem = results.settings, results.problem
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    return {
        "study": results.study.name,
        "command": command,
        "methods": settings.methods,
        "seeds": list(range(settings.seeds)),
        "tuning_seeds": settings.tuning_seeds,
        "steps": settings.steps,
        "optimizer": settings.optimizer,
        "learning_rates": settings.learning_rates,
        "chosen_rates": {
            method: [candidate.learning_rate for candidate in results.chosen(method)]
            for method in results.outcomes
        },
        "chosen_settings": {
            method: [candidate.settings for candidate in results.chosen(method)]
            for method in results.outcomes
            if method in settings.grids
        },
        "schedule": settings.schedule,
        "batch_size": settings.batch_size,
        "precision": problem.precision,
        "loss_scales": results.study.scales,
        "scaled_task": results.tasks[0],
        "tasks": results.tasks,
        "metrics": [metric.name for metric in problem.metrics],
        "reported_on": problem.reported_on,
        **problem.facts,
        "quick": settings.quick,
        "verdicts": results.judgement.verdicts,
        "statement": results.judgement.statement,
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version(), "mtl_optax": mtl_optax.__version__},
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
        "cpu_count": os.cpu_count(),
        "compilation_cache": cache.in_use(),
        "wall_seconds": round(seconds, 1),
        "seconds": {
            method: {
                "compile": round(outcome.compile_seconds, 2),
                "train": round(outcome.run_seconds, 2),
            }
            for method, outcome in results.outcomes.items()
        },
    }


def write_parts(folder: Path, whole: Whole, more: dict[str, Any]) -> None:
    """config.json of a suite: what its parts have in common, and each of its own."""
    parts = {
        name: config(results, whole.command, whole.seconds)
        for name, results in whole.results.items()
    }
    apart = ("study", "statement", "verdicts")
    some = next(iter(parts.values()))
    common = {
        key: value
        for key, value in some.items()
        if key not in apart and all(x.get(key) == value for x in parts.values())
    }
    own = {
        name: {k: v for k, v in part.items() if k not in (*common, "study")}
        for name, part in parts.items()
    }
    record = {"study": whole.suite.name, **common, **more, "parts": own}
    (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n")
