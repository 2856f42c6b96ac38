"""What `mtl-optax study groups` shows on all its parts together."""

from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mtl_optax.study import groups_tables, report, screen
from mtl_optax.study.blocks import truth
from mtl_optax.study.compare import Results
from mtl_optax.study.page import figure, page, table
from mtl_optax.study.part_scores import scores
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import groups, paired

FOUND = "Seeds in which the groups at the end of training are the blocks"
ACCURACY = (
    "Test accuracy in percent, mean over tasks and seeds; behind it the 95 % interval "
    "of the paired difference from joint"
)
PICTURES = ("affinity.png", "groups_over_time.png", "decrease.png")


def write(whole: Whole, folder: Path) -> None:
    """Writes report.html on all parts; each part has one of its own beside it."""
    warning = f'<p class="warning">{escape(screen.SMOKE)}</p>' if whole.is_quick else ""
    body = f"""<p>{escape(whole.suite.question)}</p>
{warning}
<ul>{"".join(f"<li>{escape(x)}</li>" for x in statements(whole))}</ul>
<h2>Blocks</h2><p class="small">{escape(FOUND)}.</p>
{table(["method", *whole.results], blocks_found(whole))}
<h2>Accuracy</h2><p class="small">{escape(ACCURACY)}.</p>
{table(["method", *whole.results], scores(whole))}
{"".join(_section(folder / name, x) for name, x in whole.results.items())}
<h2>Rule</h2><p>{escape(groups.RULE)} {escape(paired.INTERVALS)}</p>
<p><code>{escape(whole.command)}</code> took {whole.seconds:.0f} s.</p>
<footer><p>{escape(next(iter(whole.results.values())).problem.credits)}</p></footer>"""
    text = page(whole.suite.title, body)
    (folder / "report.html").write_text(text, encoding="utf-8")


def show(whole: Whole, console: Console) -> None:
    """Each part as a study of its own, then the tables over all of them."""
    for results in whole.results.values():
        console.print(Text(results.study.title, style="bold"))
        screen.show(console, results)
    for title, rows in ((FOUND, blocks_found(whole)), (ACCURACY, scores(whole))):
        console.print(Text(title))
        console.print(screen.plain(["method", *whole.results], rows))
    for line in statements(whole):
        console.print(Text(line))


def statements(whole: Whole) -> list[str]:
    """That of each part, after its name."""
    return [
        f"{name}: {results.judgement.statement}"
        for name, results in whole.results.items()
    ]


def blocks_found(whole: Whole) -> list[tuple[str, list[str]]]:
    """A row a method that makes groups, a column a part."""
    made = {
        name: groups_tables.found(results) for name, results in whole.results.items()
    }

    def cell(name: str, method: str) -> str:
        if method not in made[name]:
            return "-"
        blocks = truth(len(whole.results[name].tasks))
        own = made[name][method]
        word = groups.word(own.at_end, blocks).removeprefix("blocks in ")
        return word if own.late == "-" else f"{word} ({own.late} of the 2nd half)"

    methods = dict.fromkeys(method for own in made.values() for method in own)
    return [(method, [cell(name, method) for name in made]) for method in methods]


def _section(folder: Path, results: Results) -> str:
    pictures = "".join(
        figure(folder / name, Path(name).stem.replace("_", " "))
        for name in PICTURES
        if (folder / name).exists()
    )
    return f"""<h2>{escape(results.study.title)}</h2>
<p><a href="{folder.name}/report.html">All numbers of this part</a></p>
{report.extra_tables(results)}
{pictures}"""
