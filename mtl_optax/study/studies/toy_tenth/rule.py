"""Whether a run on the toy of two scales ends on the Pareto set."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.data.toy import WHERE, on_pareto_set
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.places import Places
from mtl_optax.study.report.places import judge as judge_places

GOAL = "Pareto set"
RULE = (
    f"Pareto set: the end lies {WHERE}; the factor on the first loss does not move it. "
    "elsewhere: the rest, in a valley or on the way."
)


def places(points: NDArray) -> list[str]:
    """The words of RULE for ends `[starts, 2]`."""
    return np.where(on_pareto_set(points), GOAL, "elsewhere").tolist()


PLACES = Places(
    {GOAL: "reaches the Pareto set", "elsewhere": "does not arrive"}, places, GOAL
)


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Where each method ends."""
    del tasks
    return judge_places(results, PLACES)
