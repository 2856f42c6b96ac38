"""What the study of towers leaves of all its parts: terminal, page and files."""

from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mtl_optax.study import results_files, screen
from mtl_optax.study.figures.frame import save_each
from mtl_optax.study.figures.towers import fronts, losses_by_width, mended
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.suite import Whole
from mtl_optax.study.towers_tables import by_condition, tables, words
from mtl_optax.study.verdicts.towers import FRONT_RULE, RULE, measured

SUMMARY = ("condition", "width", "method", "gamma", "seed", "task")
MEASURES = ("train loss", "test loss", "gap", "accuracy")


def show(whole: Whole, console: Console) -> None:
    """On the terminal."""
    for shown in tables(whole):
        screen.show_table(console, shown)
    for sentence in words(whole):
        console.print(Text(sentence))
    if whole.is_quick:
        console.print(screen.SMOKE, highlight=False)


def write(whole: Whole, folder: Path) -> None:
    """report.html, the figures, summary.csv (a row a run) and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = save_each(folder, (losses_by_width, mended, fronts), whole)
    results_files.write_csv(
        folder / "summary.csv", (*SUMMARY, *MEASURES), list(_rows(whole))
    )
    results_files.write_parts(folder, whole, {"words": words(whole)})
    body = [f"<p>{escape(whole.suite.question)}</p>"]
    if whole.is_quick:
        body.append(f'<p class="warning">{escape(screen.SMOKE)}</p>')
    body += ["<h2>Verdicts</h2>", *(f"<p>{escape(x)}</p>" for x in words(whole))]
    body += [figure(folder / name, text) for name, text in captions.items()]
    for shown in tables(whole):
        body.append(f"<h2>{escape(shown.title)}</h2><p>{escape(shown.note)}</p>")
        body.append(table(shown.head, shown.rows, looks=False))
    about = next(iter(whole.results.values())).problem
    body += ["<h2>Rules</h2>", *(f"<p>{escape(x)}</p>" for x in (RULE, FRONT_RULE))]
    links = (f'<a href="{name}/report.html">{name}</a>' for name in whole.results)
    body.append(f"<p>{escape(about.about)} The parts: {', '.join(links)}.</p>")
    body.append(f"<footer><p>{escape(about.credits)}</p></footer>")
    text = page(whole.suite.title, "\n".join(body))
    (folder / "report.html").write_text(text, encoding="utf-8")


def _rows(whole: Whole) -> Any:
    """A row a seed and task, of the parts by width."""
    for condition, widths in by_condition(whole).items():
        for width, results in widths.items():
            for method, outcome in results.outcomes.items():
                found = measured(outcome)
                gamma = results.chosen(method)[0].settings.get("gamma", 0)
                for seed in range(results.settings.seeds):
                    for t, task in enumerate(results.tasks):
                        cells = (f"{found[name][seed, t]:.5f}" for name in MEASURES)
                        yield condition, width, method, gamma, seed, task, *cells
