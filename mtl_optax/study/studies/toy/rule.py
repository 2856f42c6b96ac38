"""Where on the toy a run ends: at the minimum, on the Pareto set, or in a valley."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.toy import MINIMUM, NEAR, WHERE, distances, on_pareto_set
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.places import Places
from mtl_optax.study.report.places import judge as judge_places

RULE = (
    f"minimum: the end lies within {NEAR:g} of ({MINIMUM[0]:g}, {MINIMUM[1]:g}), the "
    f"minimum of the mean loss. Pareto set: elsewhere {WHERE}. "
    f"elsewhere: the rest, most of them in a valley. Where on the Pareto set a run "
    f"ends depends on rounding: in the valleys Adam jumps from wall to wall."
)


def places(points: NDArray) -> list[str]:
    """The words of RULE for ends `[starts, 2]`."""
    there = distances(points) <= NEAR
    words = np.where(on_pareto_set(points), "Pareto set", "elsewhere")
    return np.where(there, "minimum", words).tolist()


PLACES = Places(
    {
        "minimum": "reaches the minimum of the mean loss",
        "Pareto set": "stops elsewhere on the Pareto set",
        "elsewhere": "does not arrive",
    },
    places,
    goal="minimum",
)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Where each method ends."""
    del tasks
    return judge_places(results, PLACES)
