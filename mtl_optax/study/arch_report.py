"""What `mtl-optax study arch` shows and leaves of all architectures together."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mtl_optax.study import arch_files, arch_tables, results_files, screen
from mtl_optax.study.arch_scores import View, all_views
from mtl_optax.study.compare import Shown
from mtl_optax.study.figures.arch import change_by_task, delta_m_against_parameters
from mtl_optax.study.figures.frame import save_each
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import arch

LEFT_OUT = (
    "Left out on digits: MTAN and CTAL, which want images and stages; VMTL, whose "
    "tasks have one set of classes and inputs of their own; TaskBatchNorm, a layer."
)
NOTES = (
    "ltb draws its branches with temperatures of 16 epochs and is evaluated on the "
    "branches with the largest logits; self_auxiliary is evaluated, and could be kept, "
    "without its small towers. Parameters are those in training."
)


def show(whole: Whole, console: Console) -> None:
    """On the terminal."""
    for shown in tables(whole):
        screen.show_table(console, shown)
    for line in words(whole):
        console.print(Text(line))
    for line in (LEFT_OUT, NOTES):
        console.print(Text(line))
    if whole.is_quick:
        console.print(screen.SMOKE, highlight=False)


def write(whole: Whole, folder: Path) -> None:
    """report.html, the figures, summary.csv, cost.csv and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = change_by_task, delta_m_against_parameters
    captions = save_each(folder, figures, whole)
    summary = [row for view in _views(whole) for row in arch_files.summary(view)]
    costs = dict.fromkeys(row for x in _views(whole) for row in arch_files.costs(x))
    for name, head, rows in (
        ("summary.csv", arch_files.SUMMARY, summary),
        ("cost.csv", arch_files.COSTS, list(costs)),
    ):
        results_files.write_csv(folder / name, head, rows)
    results_files.write_parts(folder, whole, {"words": words(whole)})
    warning = f'<p class="warning">{escape(screen.SMOKE)}</p>' if whole.is_quick else ""
    links = (f'<a href="{name}/report.html">{name}</a>' for name in whole.results)
    credits = dict.fromkeys(x.problem.credits for x in whole.results.values())
    body = f"""<p>{escape(whole.suite.question)}</p>
{warning}
<h2>Verdicts</h2>
{"".join(f"<p>{escape(x)}</p>" for x in words(whole))}
{"".join(figure(folder / name, text) for name, text in captions.items())}
{"".join(map(_html, tables(whole)))}
<h2>Rules</h2>
{"".join(f"<p>{escape(x)}</p>" for x in (arch.RULE, arch.CONTROL, LEFT_OUT, NOTES))}
<p>Architectures one by one: {", ".join(links)}.</p>
<p><code>{escape(whole.command)}</code> took {whole.seconds:.0f} s.</p>
<footer>{"".join(f"<p>{escape(x)}</p>" for x in credits)}</footer>"""
    text = page(whole.suite.title, body)
    (folder / "report.html").write_text(text, encoding="utf-8")


def tables(whole: Whole) -> Iterator[Shown]:
    """Of each problem its costs, and for each choice of rates two tables."""
    tasks = None
    for view in _views(whole):
        if view.tasks != tasks:
            yield arch_tables.cost(view)
        tasks = view.tasks
        yield arch_tables.gain(view)
        yield arch_tables.change(view)


def words(whole: Whole) -> list[str]:
    """A paragraph a problem and choice of rates."""
    return [
        f"{view.first.problem.name.rpartition(', ')[0]}, {view.title}. "
        f"{view.statement()}"
        for view in _views(whole)
    ]


def _views(whole: Whole) -> list[View]:
    return all_views(whole.results, whole.measured)


def _html(shown: Shown) -> str:
    title, note = escape(shown.title), escape(shown.note)
    rows = table(shown.head, shown.rows)
    return f'<h2>{title}</h2><p class="small">{note}</p>{rows}'
