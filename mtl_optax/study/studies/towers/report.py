"""What the study of towers says of all widths and conditions: tables and sentences."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.compare import Results, Shown
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import paired
from mtl_optax.study.verdicts.towers import AUXILIARY, PLAIN, front, measured

FRONT = "front"  # the part in which weights of tasks are varied
# Measure -> factor and format of a mean
MEASURES = {"train loss": 100, "test loss": 100, "gap": 100, "accuracy": 1}
UNITS = "Losses and their gap times 100, accuracy in percent"


def by_condition(whole: Whole) -> dict[str, dict[int, Results]]:
    """Condition -> width of the towers -> results."""
    found: dict[str, dict[int, Results]] = {}
    for name, results in whole.results.items():
        if name != FRONT:
            facts = results.problem.facts
            found.setdefault(facts["condition"], {})[facts["tower_width"]] = results
    return found


def difference(results: Results, measure: str) -> NDArray:
    """With auxiliary towers minus without, `[seeds, T]`, in the units of the tables."""
    ours, others = (
        measured(results.outcomes[method])[measure] for method in (AUXILIARY, PLAIN)
    )
    return MEASURES[measure] * (ours - others)


def wider(narrow: Results, wide: Results, measure: str) -> NDArray:
    """Wide towers minus narrow ones, without auxiliary towers, mean of tasks."""
    ours, others = (
        measured(x.outcomes[PLAIN])[measure].mean(axis=1) for x in (wide, narrow)
    )
    return MEASURES[measure] * (ours - others)


def tables(whole: Whole) -> Iterator[Shown]:
    """Means and differences of each condition, then the front."""
    for condition, widths in by_condition(whole).items():
        seeds = next(iter(widths.values())).settings.seeds
        yield Shown(
            f"{condition}: means",
            f"{UNITS}; mean ± sd over {seeds} seeds.",
            ["width", "method", "task", *MEASURES],
            list(_means(widths)),
        )
        yield Shown(
            f"{condition}: with auxiliary towers minus without",
            f"{UNITS}; paired, with {100 * paired.CONFIDENCE:g} % intervals.",
            ["width", "gamma", "task", *MEASURES],
            list(_differences(widths)),
        )
    if FRONT in whole.results:
        found = front(whole.results[FRONT])
        width = whole.results[FRONT].problem.facts["tower_width"]
        rows = [
            (f"{gamma:g}", [f"{own.mean():.2f}", paired.change(own - found.volume[0])])
            for gamma, own in zip(found.gammas[1:], found.volume[1:], strict=True)
        ]
        change = paired.change(found.chosen - found.volume[0])
        yield Shown(
            f"{FRONT}: hypervolume of both test losses, towers of width {width}",
            "In percent of the square below a uniform guess.",
            ["gamma", "hypervolume", "minus without"],
            [
                ("0", [f"{found.volume[0].mean():.2f}", ""]),
                *rows,
                ("chosen", [f"{found.chosen.mean():.2f}", change]),
            ],
        )


def words(whole: Whole) -> list[str]:
    """Whether width harms, whether auxiliaries mend it, whether the front moves."""
    lines = []
    for condition, widths in by_condition(whole).items():
        *narrow, widest = widths
        wide = widths[widest]
        said = [
            f"{paired.change(wider(widths[x], wide, 'test loss'))} over {x}"
            for x in narrow
        ]
        mended = difference(wide, "test loss").mean(axis=1)
        points = difference(wide, "accuracy").mean(axis=1)
        lines.append(
            f"{condition}: the test loss of towers of width {widest}, times 100, "
            f"changes by {', '.join(said)}; auxiliary towers beside them change it by "
            f"{paired.change(mended)}, and accuracy by {paired.change(points)} points."
        )
    if FRONT in whole.results:
        found = front(whole.results[FRONT])
        lines.append(
            f"{FRONT}: auxiliary towers change the hypervolume by "
            f"{paired.change(found.chosen - found.volume[0])} percent of the square."
        )
    return lines


def _means(widths: dict[int, Results]) -> Iterator[tuple[str, list[str]]]:
    for width, results in widths.items():
        for method, outcome in results.outcomes.items():
            found = measured(outcome)
            for t, task in enumerate(results.tasks):
                cells = [
                    _mean(factor * found[measure][:, t])
                    for measure, factor in MEASURES.items()
                ]
                yield str(width), [method, task, *cells]


def _differences(widths: dict[int, Results]) -> Iterator[tuple[str, list[str]]]:
    for width, results in widths.items():
        gamma = results.chosen(AUXILIARY)[0].settings["gamma"]
        found = {measure: difference(results, measure) for measure in MEASURES}
        for t, task in enumerate(results.tasks):
            cells = [paired.change(own[:, t]) for own in found.values()]
            yield str(width), [f"{gamma:g}", task, *cells]


def _mean(values: NDArray) -> str:
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"
