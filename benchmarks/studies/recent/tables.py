"""What is said of each method, as tables: of a run's report, and of the page."""

from collections.abc import Iterator

import numpy as np

from benchmarks.studies.recent import rule
from benchmarks.studies.recent.measured import Measured
from benchmarks.studies.recent.tried import NEW
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.report.document import Table
from mtl_optax.study.report.paired import CONFIDENCE
from mtl_optax.study.report.styles import styles

Parts = dict[str, Measured]
NOTE = (
    "Test accuracy in percent with the interval of its mean; - sum and - relative are "
    "paired differences in points, mean over tasks."
)


def new_in(parts: Parts) -> list[str]:
    """The new methods that were measured with what they are compared with."""
    there = set.intersection(*(set(own.scores) for own in parts.values()))
    return [x for x in NEW if {x, NEW[x].relative, BASELINE} <= there]


def settings(parts: Parts) -> Iterator[tuple[str, Measured, int]]:
    """Parts and scales: a name, the part, and the number of the scale."""
    for own in parts.values():
        for s, scale in enumerate(own.scales):
            yield f"T={len(own.tasks)} ×{scale}", own, s


def verdicts(parts: Parts) -> Table:
    """A row a method: the verdict of each setting, and what the large scale does."""
    names = [name for name, *_ in settings(parts)]
    heads = [f"×{x.scales[-1]} T={len(x.tasks)}" for x in parts.values()]
    rows = [
        [
            method,
            *(
                rule.verdict(own.scores[method][s], own.scores[BASELINE][s])
                for _, own, s in settings(parts)
            ),
            *(own.verdicts[method] for own in parts.values()),
        ]
        for method in new_in(parts)
    ]
    return Table("Verdicts", "", ["method", *names, *heads], rows)


def of_method(parts: Parts, method: str) -> Table:
    """A row a setting, a column a task."""
    relative = NEW[method].relative
    tasks = max((own.tasks for own in parts.values()), key=len)
    rows = []
    for name, own, s in settings(parts):
        scores = own.scores[method][s]
        worst = rule.worst(scores)
        cells = [rule.mean(x) for x in scores.T]
        cells += [""] * (len(tasks) - len(cells))
        against = (own.scores[x][s] for x in (BASELINE, relative))
        rows.append(
            [
                *(name, own.chosen[method][s], *cells),
                f"{own.tasks[worst]} {scores[:, worst].mean():.1f}",
                *(rule.moved(scores, other) for other in against),
                rule.verdict(scores, own.scores[BASELINE][s]),
            ]
        )
    head = ["", "chosen", *tasks, "worst", "- sum", f"- {relative}", "verdict"]
    return Table(method, NOTE, head, rows)


def beside(parts: Parts) -> Table:
    """The methods that the new ones are compared with: a row each."""
    first = next(iter(parts.values()))
    others = [x for x in first.scores if x not in NEW]
    rows = [
        [
            method,
            *(
                " ".join(f"{x:.1f}" for x in own.scores[method][s].mean(axis=0))
                for _, own, s in settings(parts)
            ),
            *(
                "" if method == SINGLE_TASK else own.verdicts[method]
                for own in parts.values()
            ),
        ]
        for method in others
    ]
    heads = [f"×{x.scales[-1]} T={len(x.tasks)}" for x in parts.values()]
    note = "Test accuracy in percent of each task in its order, mean over seeds."
    names = [name for name, *_ in settings(parts)]
    return Table("Beside them", note, ["method", *names, *heads], rows, styles(others))


def statement(parts: Parts) -> str:
    """How many verdicts of each kind, and how many chance would give."""
    found = verdicts(parts)
    number = len(list(settings(parts)))
    said = [cell for row in found.rows for cell in row[1 : 1 + number]]
    words = {text: said.count(text) for text in rule.WORDS.values() if text in said}
    counts = ", ".join(f"{text}: {count}" for text, count in words.items())
    chance = (1 - CONFIDENCE) * len(said)
    return (
        f"Of {len(said)} comparisons with the sum, {counts}; were there no difference "
        f"anywhere, chance would name about {chance:.1f}."
    )


def worst_task(own: Measured, method: str) -> np.ndarray:
    """Accuracy of the task with the lowest mean, `[scales, seeds]`."""
    scores = own.scores[method]
    return np.stack([x[:, rule.worst(x)] for x in scores])
