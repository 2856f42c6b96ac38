"""What `mtl-optax study vmtl` shows on all shares of labels together."""

from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mtl_optax.study import screen
from mtl_optax.study.compare import Results
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.part_scores import scores
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts.vmtl import RULE, SINGLE

ACCURACY = (
    "Test accuracy in percent, mean over domains and seeds; behind it the 95 % "
    f"interval of the paired difference from {SINGLE}"
)


def write(whole: Whole, folder: Path) -> None:
    """Writes report.html on all parts; each part has one of its own beside it."""
    warning = f'<p class="warning">{escape(screen.SMOKE)}</p>' if whole.is_quick else ""
    parts = "".join(_section(folder / name, x) for name, x in whole.results.items())
    body = f"""<p>{escape(whole.suite.question)}</p>
{warning}
<h2>Accuracy</h2><p class="small">{escape(ACCURACY)}.</p>
{table(["arm", *whole.results], scores(whole))}
{parts}
<h2>Rule</h2><p>{escape(RULE)}</p>
<p><code>{escape(whole.command)}</code> took {whole.seconds:.0f} s.</p>
<footer><p>{escape(next(iter(whole.results.values())).problem.credits)}</p></footer>"""
    text = page(whole.suite.title, body)
    (folder / "report.html").write_text(text, encoding="utf-8")


def show(whole: Whole, console: Console) -> None:
    """Each part as a study of its own, then the table over all of them."""
    for results in whole.results.values():
        console.print(Text(results.study.title, style="bold"))
        screen.show(console, results)
    console.print(Text(ACCURACY))
    console.print(screen.plain(["arm", *whole.results], scores(whole)))


def _section(folder: Path, results: Results) -> str:
    weights = folder / "prior_weights.png"
    shown = figure(weights, "weights of the priors") if weights.exists() else ""
    return f"""<h2>{escape(results.study.title)}</h2>
<p><strong>{escape(results.judgement.statement)}</strong>
<a href="{folder.name}/report.html">All numbers of this part</a></p>
{shown}"""
