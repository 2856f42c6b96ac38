"""What the study of flat minima says of all conditions, as tables and sentences."""

from collections.abc import Iterator
from typing import NamedTuple

from mtl_optax.study import pairs, screen
from mtl_optax.study.compare import Results
from mtl_optax.study.damaged import MEASURED
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
    methods = first(whole).settings.methods
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
    methods = first(whole).settings.methods
    sentences = [
        verdicts.sentence(method, other, pairs.tallies(whole, method, other))
        for method, other in pairs.against_plain(methods)
    ]
    beyond = {m: pairs.tallies(whole, m, sam) for m, sam in pairs.against_sam(methods)}
    return [*sentences, verdicts.beyond_sam(beyond)]


def rules(whole: Whole) -> list[str]:
    """How to read them."""
    settings = first(whole).settings
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


def first(whole: Whole) -> Results:
    """One of the parts, for what they have in common."""
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
                radius(results, method),
            ],
        )
        for method, outcome in results.outcomes.items()
        for t, task in enumerate(results.tasks)
    ]
    title = f"{name}: mean ± sd over {settings.seeds} seed(s), {settings.steps} steps"
    return Table(title, head, rows)


def radius(results: Results, method: str) -> str:
    """The chosen one; empty for a plain method."""
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
