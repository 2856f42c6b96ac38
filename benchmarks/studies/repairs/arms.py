"""What is tried against negative transfer, and what each costs.

An arm is a method of a part: the sum on another network, with other weights or under
regularisation, or a method that looks at the tasks' gradients.
"""

from functools import partial
from typing import Any, NamedTuple

from mtl_optax.study.data.digits import TASKS
from mtl_optax.study.data.regularised import regularised_digits
from mtl_optax.study.engine.methods import BASELINE, METHODS
from mtl_optax.study.engine.transformations import Method, decayed

USUAL, LONGER, WIDER, DROPPED = "usual", "steps_4", "width_2", "dropout"  # parts
ALIKE = LONGER, WIDER, DROPPED  # arms that the single tasks have got as well
STEPS = 1000
DAMAGED = ("parity", "greater")


class Arm(NamedTuple):
    """One thing to try, in the part USUAL unless it is one of ALIKE."""

    kind: str  # what is changed
    method: Method = METHODS[BASELINE]
    network: dict[str, Any] = {}  # noqa: RUF012, read only: of regularised_digits
    # Of the method, or of the losses: one value each
    grid: dict[str, tuple[float, ...]] = {}  # noqa: RUF012, read only
    passes: int = 1  # backward, of a step


def _groups(*groups: str) -> Arm:
    """A trunk for each group of tasks: as much as networks apart, as Adam is."""
    return Arm("groups", network={"groups": tuple(tuple(x.split()) for x in groups)})


def _of_gradients(name: str) -> Arm:
    return Arm("methods", METHODS[name], passes=len(TASKS))


GRADIENT = ("pcgrad", "cagrad", "mgda", "imtl_g", "nash_mtl")
ARMS = {
    BASELINE: Arm("rate"),
    LONGER: Arm("steps"),
    WIDER: Arm("width", network={"width": 128}),
    "width_4": Arm("width", network={"width": 256}),
    "weights_2": Arm("weights", METHODS["weighted"], grid={"later": (2.0,)}),
    "weights_4": Arm("weights", METHODS["weighted"], grid={"later": (4.0,)}),
    "digits_apart": _groups("left right", "parity greater"),
    "left_parity": _groups("left parity", "right greater"),
    "left_greater": _groups("left greater", "right parity"),
    DROPPED: Arm("regularisation", grid={"dropout": (0.1,)}),
    "l2": Arm("regularisation", decayed(METHODS[BASELINE]), grid={"l2": (1e-3,)}),
    **{name: _of_gradients(name) for name in GRADIENT},
}
KINDS = tuple(dict.fromkeys(own.kind for own in ARMS.values()))
IN_USUAL = {name: own for name, own in ARMS.items() if name not in ALIKE}
OWN = {name: own for name, own in IN_USUAL.items() if name not in METHODS}
problem = partial(regularised_digits, len(TASKS))


def place(arm: str) -> tuple[str, str]:
    """The part and the method of it that an arm is."""
    return (arm, BASELINE) if arm in ALIKE else (USUAL, arm)
