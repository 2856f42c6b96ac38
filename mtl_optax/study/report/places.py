"""Where runs in the plane end, in words: a verdict, sentences, a table and a CSV.

For studies whose parameters are a point, whose path is kept, and whose seeds are
starts.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtl_optax.study.engine.study import Judgement, MethodResult, PartResult
from mtl_optax.study.report.document import Table

Numbers = Mapping[str, Callable[[NDArray], NDArray]]  # name -> of points [starts, 2]


class Places(NamedTuple):
    """The places where a run may end."""

    said: dict[str, str]  # place -> what a method does that ends there
    find: Callable[[NDArray], list[str]]  # ends [starts, 2] -> a place each
    goal: str  # the place that verdicts count


def ends(result: MethodResult) -> NDArray[np.float64]:
    """The last points `[starts, 2]`."""
    assert result.path is not None
    return result.path[-1, 0]


def judge(results: dict[str, MethodResult], places: Places) -> Judgement:
    """Where each method ends."""
    found = {method: places.find(ends(own)) for method, own in results.items()}
    goal = places.goal
    words = {
        method: f"{goal} from {at.count(goal)} of {len(at)}"
        for method, at in found.items()
    }
    sentences = {method: sentence(method, at, places) for method, at in found.items()}
    always = [method for method, at in found.items() if set(at) == {goal}]
    return Judgement(
        words,
        sentences,
        f"What {places.said[goal]} from every start: "
        f"{', '.join(always) or 'no method here'}.",
    )


def sentence(method: str, found: list[str], places: Places) -> str:
    """The verdict line of a method."""
    said = [
        f"{text} from {found.count(place)}"
        for place, text in places.said.items()
        if place in found
    ]
    return f"{method} {', '.join(said)} of {len(found)} starts."


def table(
    result: PartResult, starts: NDArray, value: Callable[[NDArray], NDArray], what: str
) -> Table:
    """A row a start, a column a method: end points, and the `value` there."""
    columns = []
    for own in result.methods.values():
        both = zip(ends(own), value(ends(own)), strict=True)
        columns.append([f"({x:.2f}, {y:.2f}) {found:.2f}" for (x, y), found in both])
    names = [f"({x:g}, {y:g})" for x, y in starts.round(1)]
    return Table(
        "End points",
        f"And the {what} there, after {result.settings.steps} steps in float64.",
        ["start", *result.methods],
        [list(row) for row in zip(names, *columns, strict=True)],
    )


def files(
    result: PartResult, starts: NDArray, places: Places, numbers: Numbers
) -> dict[str, pd.DataFrame]:
    """ends.csv: one row a method and start."""
    tables = []
    for method, own in result.methods.items():
        end = ends(own)
        named = {"x": end[:, 0], "y": end[:, 1]}
        named |= {name: function(end) for name, function in numbers.items()}
        columns = {k: [f"{value:.6f}" for value in x] for k, x in named.items()}
        at = {"start_x": starts[:, 0], "start_y": starts[:, 1]}
        rows = {"method": method, **at, **columns, "place": places.find(end)}
        tables.append(pd.DataFrame(rows))
    return {"ends.csv": pd.concat(tables)}
