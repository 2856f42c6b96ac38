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
from mtl_optax.study import cache, plots, runner, screen
from mtl_optax.study.compare import Results
from mtl_optax.study.data import CREDITS, NUM_IMAGES, NUM_SCANS
from mtl_optax.study.page import figure, page, table

COLUMNS = (
    *("method", "scale", "learning_rate", "chosen"),
    *("seed", "task", "split", "accuracy"),
)


def write(folder: Path, results: Results, command: str, seconds: float) -> None:
    """Writes everything into the folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = config(results, command, seconds)
    with open(folder / "metrics.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows(metrics(results))
    (folder / "config.json").write_text(json.dumps(configuration, indent=2) + "\n")
    captions = plots.write(folder, results)
    text = html(results, configuration, folder, captions)
    (folder / "report.html").write_text(text, encoding="utf-8")


def metrics(results: Results) -> list[tuple[Any, ...]]:
    """One row a number, in the order of COLUMNS."""
    rates = results.settings.learning_rates
    return [
        (
            *(method, scale, f"{rate:g}", int(r == outcome.chosen[s])),
            *(seed, task, split, f"{values[r, s, seed, t]:.4f}"),
        )
        for method, outcome in results.outcomes.items()
        for split, values in outcome.every_accuracy.items()
        for r, rate in enumerate(rates)
        for s, scale in enumerate(results.study.scales)
        for seed in range(results.settings.seeds)
        for t, task in enumerate(results.tasks)
    ]


def config(results: Results, command: str, seconds: float) -> dict[str, Any]:
    """All that is needed to run it again, and how long it took."""
    settings = results.settings
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    return {
        "study": results.study.name,
        "command": command,
        "methods": settings.methods,
        "seeds": list(range(settings.seeds)),
        "steps": settings.steps,
        "optimizer": settings.optimizer,
        "learning_rates": settings.learning_rates,
        "chosen_rates": {
            method: [settings.learning_rates[index] for index in outcome.chosen]
            for method, outcome in results.outcomes.items()
        },
        "schedule": "cosine to 0",
        "batch_size": runner.BATCH_SIZE,
        "loss_scales": results.study.scales,
        "scaled_task": results.tasks[0],
        "tasks": results.tasks,
        "scans": NUM_SCANS,
        "images": NUM_IMAGES,
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


def html(
    results: Results,
    configuration: dict[str, Any],
    folder: Path,
    captions: dict[str, str],
) -> str:
    """The page; it needs no other file and no network."""
    study, settings, judgement = results.study, results.settings, results.judgement
    warning = f'<p class="warning">{escape(screen.SMOKE)}</p>' if settings.quick else ""
    factor = f"; × is the factor on the loss of {results.tasks[0]}"
    body = f"""<p>{escape(study.question)}</p>
{warning}
<h2>Verdicts</h2>
<ul>{"".join(f"<li>{escape(x)}</li>" for x in judgement.sentences.values())}</ul>
<p><strong>{escape(judgement.statement)}</strong></p>
<h2>Test accuracy</h2>
<p class="small">Percent, mean ± sd over {settings.seeds} seed(s), after
{settings.steps} steps{factor if len(study.scales) > 1 else ""}.</p>
{_accuracy_table(results)}
{"".join(figure(folder / name, text) for name, text in captions.items())}
<h2>Rules</h2>
{"".join(f"<p>{escape(rule)}</p>" for rule in study.rules)}
<p>All methods share start, batches, network (trunk 144-128-64, ReLU, a linear head for
each task) and the optimiser {settings.optimizer}. {escape(_rates(results))} Methods act
on the trunk; each head gets its own gradient. Nothing is chosen on test data: the last
parameters count. Scans are split into training, validation and test before any are
composed. single_task trains each task in a network of its own.</p>
<h2>Seconds a method</h2>
{_time_table(results)}
<details>
<summary>Configuration, also in config.json</summary>
<pre class="small table">{escape(json.dumps(configuration, indent=2))}</pre>
</details>
<footer><p>{escape(CREDITS)}</p></footer>"""
    return page(study.title, body)


def _rates(results: Results) -> str:
    rates = results.settings.learning_rates
    if len(rates) == 1:
        return f"The learning rate {rates[0]:g} falls to 0 on a cosine."
    return (
        f"The learning rate falls to 0 on a cosine from one of "
        f"{', '.join(f'{rate:g}' for rate in rates)}: for each method and scale the "
        f"one with the best validation accuracy, mean over seeds and tasks; see the "
        f"table below. All are in metrics.csv."
    )


def _accuracy_table(results: Results) -> str:
    words = results.judgement.verdicts
    rows = [
        (method, [*screen.cells(outcome.accuracy["test"]), words[method]])
        for method, outcome in results.outcomes.items()
    ]
    head = screen.columns(results.study.scales, results.tasks)
    return table(["method", *head, "verdict"], rows)


def _time_table(results: Results) -> str:
    rows = [
        (method, screen.time_cells(results, outcome))
        for method, outcome in results.outcomes.items()
    ]
    return table(["method", *screen.time_columns(results)], rows)
