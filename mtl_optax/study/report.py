"""The report of a study: report.html, with its tables and figures.

Beside it lie the numbers (see results_files.py), summary.csv and the figures as PNG.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from mtl_optax.study import intervals, results_files, screen
from mtl_optax.study.compare import Results
from mtl_optax.study.figures import frame
from mtl_optax.study.page import figure, page, table


def write(folder: Path, results: Results, command: str, seconds: float) -> None:
    """Writes everything into the folder, which is made if need be."""
    configuration = results_files.write(folder, results, command, seconds)
    summary = intervals.summary(results)
    results_files.write_csv(folder / "summary.csv", intervals.COLUMNS, summary)
    captions = frame.save(folder, results)
    text = html(results, configuration, _scores(results, folder, captions))
    (folder / "report.html").write_text(text, encoding="utf-8")


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
    text += extra_tables(results)
    return text + "".join(figure(folder / name, x) for name, x in captions.items())


def extra_tables(results: Results) -> str:
    """Those of this study alone."""
    made = (show(results) for show in results.study.tables)
    return "".join(
        f"<h2>{escape(shown.title)}</h2>"
        f'<p class="small">{escape(shown.note)}</p>'
        f"{table(shown.head, shown.rows, looks=False)}"
        for shown in made
        if shown is not None
    )


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
