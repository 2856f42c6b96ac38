"""What the study of flat minima leaves of all conditions: terminal, page and files."""

from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Drawing
from rich.text import Text

from mtl_optax.analysis.comparison import mean_and_sd
from mtl_optax.study import pairs, results_files, screen
from mtl_optax.study.figures.flat import changes, landscape
from mtl_optax.study.figures.frame import save_each
from mtl_optax.study.flat_tables import first, radius, rules, tables, words
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import flat as verdicts
from mtl_optax.study.verdicts import paired

SUMMARY = ("condition", "method", "rho_shared", "metric", "task", "seeds", "mean", "sd")
DIFFERENCES = (
    *("condition", "method", "other", "metric", "task", "seeds"),
    *("difference", "t_low", "t_high"),
)


def show(whole: Whole, console: Console) -> None:
    """On the terminal."""
    for title, head, rows in tables(whole):
        drawing = Drawing(**screen.LAYOUT | {"padding": 0, "show_edge": False})
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
    if whole.is_quick:
        console.print(screen.SMOKE, highlight=False)


def write(whole: Whole, folder: Path) -> None:
    """report.html, both figures, summary.csv, differences.csv and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = save_each(folder, (changes, landscape), whole)
    results_files.write_csv(folder / "summary.csv", SUMMARY, _summary(whole))
    results_files.write_csv(
        folder / "differences.csv", DIFFERENCES, _all_differences(whole)
    )
    results_files.write_parts(folder, whole, {"words": words(whole)})
    body = [f"<p>{escape(whole.suite.question)}</p>"]
    if whole.is_quick:
        body.append(f'<p class="warning">{escape(screen.SMOKE)}</p>')
    body += ["<h2>Verdicts</h2>", *(f"<p>{escape(x)}</p>" for x in words(whole))]
    body += [figure(folder / name, text) for name, text in captions.items()]
    for title, head, rows in tables(whole):
        body.append(f"<h2>{escape(title)}</h2>{table(head, rows)}")
    links = (f'<a href="{name}/report.html">{name}</a>' for name in whole.results)
    body += ["<h2>Rules</h2>", *(f"<p>{escape(x)}</p>" for x in rules(whole))]
    body.append(f"<p>The conditions one by one: {', '.join(links)}.</p>")
    body.append(f"<footer><p>{escape(first(whole).problem.credits)}</p></footer>")
    text = page(whole.suite.title, "\n".join(body))
    (folder / "report.html").write_text(text, encoding="utf-8")


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
                    key = name, method, radius(results, method), metric, task
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
