"""What the study of flat minima says of all conditions: tables, page and files."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as Drawing
from rich.text import Text

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study import pairs, results_files, screen
from mtl_optax.study.compare import Results
from mtl_optax.study.damaged import MEASURED
from mtl_optax.study.figures.flat import changes, landscape
from mtl_optax.study.figures.frame import save_each
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import flat as verdicts
from mtl_optax.study.verdicts import paired


class Table(NamedTuple):
    """For the terminal and the page alike."""

    title: str
    head: list[str]
    rows: list[tuple[str, list[str]]]  # method, cells


def tables(whole: Whole) -> Iterator[Table]:
    """Scores and differences of each condition, then what all of them say."""
    methods = _first(whole).settings.methods
    for name, results in whole.results.items():
        yield _scores(name, results)
        if found := _differences(results):
            title = f"{name}: F- minus plain, sam minus mean, [95 % interval]"
            yield Table(title, ["method", "task", *_heads()], found)
    for title, chosen in (
        ("All conditions: F- minus plain, sam minus mean", pairs.against_plain),
        ("All conditions: F- minus sam", pairs.against_sam),
    ):
        rows = [
            (method, [metric, *verdicts.cells(found, metric)])
            for method, other in chosen(methods)
            for metric, found in pairs.tallies(whole, method, other).items()
        ]
        if rows:
            yield Table(title, ["method", *verdicts.HEAD], rows)


def words(whole: Whole) -> list[str]:
    """A sentence a pair, and the statement on joint SAM."""
    methods = _first(whole).settings.methods
    sentences = [
        verdicts.sentence(method, other, pairs.tallies(whole, method, other))
        for method, other in pairs.against_plain(methods)
    ]
    beyond = {m: pairs.tallies(whole, m, sam) for m, sam in pairs.against_sam(methods)}
    return [*sentences, verdicts.beyond_sam(beyond)]


def show(whole: Whole, console: Console) -> None:
    """On the terminal."""
    for title, head, rows in tables(whole):
        drawing = Drawing(**screen.LAYOUT)
        for name in head:
            left = name in ("method", "task", "metric", "paper", "verdict")
            # Numbers fold where the terminal is too narrow: none is cut.
            drawing.add_column(name, justify="left" if left else "right", no_wrap=left)
        for method, cells in rows:
            drawing.add_row(method, *map(Text, cells))
        console.print(Text(title))
        console.print(drawing)
    for sentence in words(whole):
        console.print(Text(sentence))
    if _first(whole).settings.quick:
        console.print(screen.SMOKE, highlight=False)


def write(whole: Whole, folder: Path) -> None:
    """report.html, both figures, summary.csv, differences.csv and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = save_each(folder, (changes, landscape), whole)
    results_files.write_csv(folder / "summary.csv", SUMMARY, _summary(whole))
    results_files.write_csv(
        folder / "differences.csv", DIFFERENCES, _all_differences(whole)
    )
    (folder / "config.json").write_text(json.dumps(_config(whole), indent=2) + "\n")
    body = [f"<p>{escape(whole.suite.question)}</p>"]
    if _first(whole).settings.quick:
        body.append(f'<p class="warning">{escape(screen.SMOKE)}</p>')
    body += ["<h2>Verdicts</h2>", *(f"<p>{escape(x)}</p>" for x in words(whole))]
    body += [figure(folder / name, text) for name, text in captions.items()]
    for title, head, rows in tables(whole):
        body.append(f"<h2>{escape(title)}</h2>{table(head, rows)}")
    links = (f'<a href="{name}/report.html">{name}</a>' for name in whole.results)
    body += ["<h2>Rules</h2>", *(f"<p>{escape(x)}</p>" for x in _rules(whole))]
    body.append(f"<p>The conditions one by one: {', '.join(links)}.</p>")
    body.append(f"<footer><p>{escape(_first(whole).problem.credits)}</p></footer>")
    text = page(whole.suite.title, "\n".join(body))
    (folder / "report.html").write_text(text, encoding="utf-8")


SUMMARY = ("condition", "method", "rho_shared", "metric", "task", "seeds", "mean", "sd")
DIFFERENCES = (
    *("condition", "method", "other", "metric", "task", "seeds"),
    *("difference", "t_low", "t_high"),
)


def _first(whole: Whole) -> Results:
    return next(iter(whole.results.values()))


def _heads() -> list[str]:
    return [f"{name} / {x.unit}" for name, x in verdicts.CLAIMS.items()]


def _scores(name: str, results: Results) -> Table:
    settings = results.settings
    head = ["method", "task", "accuracy / %", "sharpness / mnat", "ece / %", "radius"]
    rows = [
        (
            method,
            [
                task,
                *(
                    screen.cells(pairs.values(outcome, metric)[None, :, t : t + 1])[0]
                    for metric in verdicts.CLAIMS
                ),
                _radius(results, method),
            ],
        )
        for method, outcome in results.outcomes.items()
        for t, task in enumerate(results.tasks)
    ]
    title = f"{name}: mean ± sd over {settings.seeds} seed(s), {settings.steps} steps"
    return Table(title, head, rows)


def _radius(results: Results, method: str) -> str:
    return results.chosen(method)[0].more().removeprefix("rho_shared=")


def _differences(results: Results) -> list[tuple[str, list[str]]]:
    rows = []
    for method, other in pairs.against_plain(results.settings.methods):
        for t, task in enumerate(results.tasks):
            found = (
                pairs.difference(results.outcomes, method, other, metric)[:, t]
                for metric in verdicts.CLAIMS
            )
            rows.append((method, [task, *map(paired.change, found)]))
    return rows


def _rules(whole: Whole) -> list[str]:
    first = _first(whole)
    settings = first.settings
    start, number = settings.seeds, settings.tuning_seeds
    whose = "the seeds reported"
    if number:
        whose = f"seeds {start} to {start + number - 1}, which are not"
    tuned = (
        f"The radius of each perturbed method and condition is the one of its grid "
        f"with the best validation accuracy, mean over both tasks and "
        f"{whose}; plain methods have nothing to choose, which "
        f"is an advantage of the others. Optimiser {settings.optimizer}, learning rate "
        f"{', '.join(f'{x:g}' for x in settings.learning_rates)}."
    )
    return [verdicts.RULE, paired.INTERVALS, tuned, MEASURED]


def _summary(whole: Whole) -> list[tuple[Any, ...]]:
    rows = []
    for name, results in whole.results.items():
        for method, outcome in results.outcomes.items():
            for metric in verdicts.CLAIMS:
                runs = pairs.values(outcome, metric)
                for t, task in enumerate(results.tasks):
                    own, sd = runs[:, t], ""
                    if len(own) > 1:
                        sd = f"{float(mean_and_sd(own).sd):.4f}"
                    key = name, method, _radius(results, method), metric, task
                    rows.append((*key, len(own), f"{own.mean():.4f}", sd))
    return rows


def _all_differences(whole: Whole) -> list[tuple[Any, ...]]:
    rows = []
    for name, results in whole.results.items():
        methods = results.settings.methods
        both = pairs.against_plain(methods) + pairs.against_sam(methods)
        for method, other in both:
            for metric in verdicts.CLAIMS:
                found = pairs.difference(results.outcomes, method, other, metric)
                for t, task in enumerate(results.tasks):
                    own, bounds = found[:, t], ["", ""]
                    if len(own) > 1:
                        low, high = paired.interval(own)[1:3]
                        bounds = [f"{low:.4f}", f"{high:.4f}"]
                    key = name, method, other, metric, task, len(own)
                    rows.append((*key, f"{own.mean():.4f}", *bounds))
    return rows


def _config(whole: Whole) -> dict[str, Any]:
    """What all parts have in common, and what each has of its own."""
    parts = {
        name: results_files.config(results, whole.command, whole.seconds)
        for name, results in whole.results.items()
    }
    apart = ("study", "statement", "verdicts")
    first = next(iter(parts.values()))
    common = {
        key: value
        for key, value in first.items()
        if key not in apart and all(x[key] == value for x in parts.values())
    }
    own = {
        name: {k: v for k, v in part.items() if k not in (*common, "study")}
        for name, part in parts.items()
    }
    return {"study": whole.suite.name, **common, "words": words(whole), "parts": own}
