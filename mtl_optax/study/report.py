"""What a study leaves in its folder: metrics.csv, config.json, figures, report.html."""

import csv
import json
import os
import platform
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import mtl_optax
from mtl_optax.study import cache, intervals, screen
from mtl_optax.study.compare import Results
from mtl_optax.study.figures.frame import save
from mtl_optax.study.page import figure, page, table

COLUMNS = (
    *("method", "scale", "learning_rate", "settings", "chosen", "seed", "task"),
    "split",
)


def write(folder: Path, results: Results, command: str, seconds: float) -> None:
    """Writes everything into the folder, which is made if need be."""
    configuration = write_numbers(folder, results, command, seconds)
    csv_file(folder / "summary.csv", intervals.COLUMNS, intervals.summary(results))
    captions = save(folder, results)
    text = html(results, configuration, _scores(results, folder, captions))
    (folder / "report.html").write_text(text, encoding="utf-8")


def write_numbers(
    folder: Path, results: Results, command: str, seconds: float
) -> dict[str, Any]:
    """Writes metrics.csv and config.json, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = config(results, command, seconds)
    names = tuple(metric.name for metric in results.problem.metrics)
    csv_file(folder / "metrics.csv", (*COLUMNS, *names), metrics(results))
    (folder / "config.json").write_text(json.dumps(configuration, indent=2) + "\n")
    return configuration


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


def html(results: Results, configuration: dict[str, Any], middle: str) -> str:
    """The page around the numbers; it needs no other file and no network."""
    study, problem, judgement = results.study, results.problem, results.judgement
    warning = f'<p class="warning">{escape(screen.SMOKE)}</p>'
    body = f"""<p>{escape(study.question)}</p>
{warning if results.settings.quick else ""}
<h2>Verdicts</h2>
<ul>{"".join(f"<li>{escape(x)}</li>" for x in judgement.sentences.values())}</ul>
<p><strong>{escape(judgement.statement)}</strong></p>
{middle}
<h2>Rules</h2>
{"".join(f"<p>{escape(rule)}</p>" for rule in study.rules)}
<p>{escape(problem.about)} {escape(_rates(results))} The last parameters count.</p>
<h2>Seconds a method</h2>
{_time_table(results)}
<details>
<summary>Configuration, also in config.json</summary>
<pre class="small table">{escape(json.dumps(configuration, indent=2))}</pre>
</details>
<footer><p>{escape(problem.credits)}</p></footer>"""
    return page(study.title, body)


def _scores(results: Results, folder: Path, captions: dict[str, str]) -> str:
    """Tables of scores and of intervals, then the figures."""
    settings, metric = results.settings, results.problem.metrics[0]
    unit = "Percent" if metric.unit == "%" else metric.unit.capitalize()
    factor = f"; × is the factor on the loss of {results.tasks[0]}"
    text = f"""<h2>{results.problem.reported_on.capitalize()} {metric.name}</h2>
<p class="small">{unit}, mean ± sd over {settings.seeds} seed(s), after
{settings.steps} steps{factor if len(results.study.scales) > 1 else ""}.</p>
{_score_table(results)}"""
    compared = intervals.against_baseline(results)
    if compared:
        head = ["method", *screen.columns(results.study.scales, results.tasks)]
        rows = [(method, intervals.cells(x)) for method, x in compared.items()]
        text += (
            f'<p class="small">{escape(intervals.title(results))} (Student\'s t; also '
            f"in summary.csv, the bootstrap beside it).</p>{table(head, rows)}"
        )
    return text + "".join(figure(folder / name, x) for name, x in captions.items())


def _rates(results: Results) -> str:
    settings, problem = results.settings, results.problem
    falls = " and falls to 0 on a cosine" if settings.schedule == "cosine" else ""
    rates = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    text = f"The optimiser is {settings.optimizer}; its learning rate is "
    if len(settings.learning_rates) == 1:
        return f"{text}{rates}{falls}."
    where = {"val": "validation"}.get(problem.chosen_on, problem.chosen_on)
    first, number = settings.seeds, settings.tuning_seeds
    whose = f"seeds {first} to {first + number - 1}" if number else "seeds"
    return (
        f"{text}one of {rates}{falls}: for each method and scale the one with the best "
        f"{where} {problem.metrics[0].name}, mean over {whose} and tasks; see "
        f"the table below. All are in metrics.csv."
    )


def _score_table(results: Results) -> str:
    words = results.judgement.verdicts
    rows = [
        (method, [*screen.cells(outcome.score), words[method]])
        for method, outcome in results.outcomes.items()
    ]
    head = screen.columns(results.study.scales, results.tasks)
    return table(["method", *head, "verdict"], rows)


def _time_table(results: Results) -> str:
    rows = [(method, screen.time_cells(results, method)) for method in results.outcomes]
    return table(["method", *screen.time_columns(results)], rows)


def csv_file(path: Path, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Writes a table with a row of heads."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
