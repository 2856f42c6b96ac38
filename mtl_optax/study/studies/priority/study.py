"""The study of priority: three methods with an order of tasks, channels or tensions."""

from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mtl_optax.study import channels, logic_gates, report, screen, subordinate
from mtl_optax.study.page import figure, page
from mtl_optax.study.suite import Suite, Whole

QUESTION = (
    "Who comes first? cso gives each channel to the task that depends on it most, cdtt "
    "pulls towards the tasks that converge least, and nmt trains in an order of "
    "importance. Each is tried on the problem that it was made for, in small."
)
INFERRED = (
    "The equations of nmt are INFERRED: reconstructed from the paper's abstract and "
    "Platt and Barr 1987."
)


def show(whole: Whole, console: Console) -> None:
    """Each part as a study of its own, then what each says in a sentence."""
    for results in whole.results.values():
        console.print(Text(results.study.title, style="bold"))
        screen.show(console, results)
    for line in statements(whole):
        console.print(Text(line))


def write(whole: Whole, folder: Path) -> None:
    """Writes report.html on all parts; each part has one of its own beside it."""
    sections = []
    for name, results in whole.results.items():
        pictures = sorted((folder / name).glob("*.png"))
        sections.append(
            f"<h2>{escape(results.study.title)}</h2>"
            f"<p>{escape(results.study.question)}</p>"
            f"<p><strong>{escape(results.judgement.statement)}</strong> "
            f'<a href="{name}/report.html">All numbers of this part</a></p>'
            f"{report.extra_tables(results)}"
            f"{''.join(figure(x, x.stem) for x in pictures)}"
        )
    warning = f'<p class="warning">{escape(screen.SMOKE)}</p>' if whole.is_quick else ""
    credits = dict.fromkeys(x.problem.credits for x in whole.results.values())
    body = f"""<p>{escape(whole.suite.question)} {escape(INFERRED)}</p>
{warning}
{"".join(sections)}
<p><code>{escape(whole.command)}</code> took {whole.seconds:.0f} s.</p>
<footer>{"".join(f"<p>{escape(x)}</p>" for x in credits)}</footer>"""
    text = page(whole.suite.title, body)
    (folder / "report.html").write_text(text, encoding="utf-8")


def statements(whole: Whole) -> list[str]:
    """That of each part, after its name."""
    return [
        f"{name}: {results.judgement.statement}"
        for name, results in whole.results.items()
    ]


_PARTS = (channels.STUDY, logic_gates.STUDY, subordinate.STUDY)
SUITE = Suite(
    name="priority",
    title="Priority",
    question=QUESTION,
    parts=_PARTS,
    quick=_PARTS,
    write=write,
    show=show,
    has_fixed_methods=True,
)
