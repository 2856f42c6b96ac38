"""Where on the toy a run ends: at the minimum, on the Pareto set, or in a valley."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.engine.study import Judgement, MethodResult

MINIMUM = (0.0, -8.3552)  # of the mean loss
NEAR = 0.05
PARETO = (-8.5, -8.25)  # the second coordinate on the Pareto set, and a margin
PLACES = {
    "minimum": "reaches the minimum of the mean loss",
    "Pareto set": "stops elsewhere on the Pareto set",
    "elsewhere": "does not arrive",
}

RULE = (
    f"minimum: the end lies within {NEAR:g} of ({MINIMUM[0]:g}, {MINIMUM[1]:g}), the "
    f"minimum of the mean loss. Pareto set: elsewhere between {PARETO[0]:g} and "
    f"{PARETO[1]:g} in the second coordinate, where no step is good for both losses. "
    f"elsewhere: the rest, most of them in a valley. Where on the Pareto set a run "
    f"ends depends on rounding: in the valleys Adam jumps from wall to wall."
)


def ends(result: MethodResult) -> NDArray[np.float64]:
    """The last points `[starts, 2]`."""
    assert result.path is not None
    return result.path[-1, 0]


def distances(points: NDArray) -> NDArray[np.float64]:
    """Of points `[..., 2]` from MINIMUM."""
    return np.linalg.norm(points - np.array(MINIMUM), axis=-1)


def places(points: NDArray) -> list[str]:
    """The words of RULE for ends `[starts, 2]`."""
    return [
        "minimum"
        if distance <= NEAR
        else ("Pareto set" if PARETO[0] < y < PARETO[1] else "elsewhere")
        for y, distance in zip(points[:, 1], distances(points), strict=True)
    ]


def judge(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Where each method ends."""
    del tasks
    found = {method: places(ends(own)) for method, own in results.items()}
    words = {
        method: f"minimum from {at.count('minimum')} of {len(at)}"
        for method, at in found.items()
    }
    sentences = {method: sentence(method, at) for method, at in found.items()}
    always = [method for method, at in found.items() if set(at) == {"minimum"}]
    return Judgement(
        words,
        sentences,
        "From every start the minimum of the mean loss is reached by "
        f"{', '.join(always) or 'no method here'}.",
    )


def sentence(method: str, found: list[str]) -> str:
    """The verdict line of a method."""
    said = [
        f"{text} from {found.count(place)}"
        for place, text in PLACES.items()
        if place in found
    ]
    return f"{method} {', '.join(said)} of {len(found)} starts."
