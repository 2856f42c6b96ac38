"""Methods and rates of the trajectory suite of TorchJD.

It multiplies the rate of a problem by a number for each method, since methods differ in
the length of what they return, and has others for two methods on two of the problems.
GradDrop and random weights, which it has as well, draw, and are left out here.
"""

from functools import partial

import mtl_optax as mtl
from mtl_optax.study.engine.methods import METHODS
from mtl_optax.study.engine.transformations import Method, at_rate, on_trunk

TIMES = {
    **{"mean": 1.0, "upgrad": 1.0, "pcgrad": 0.5, "dualproj": 1.0, "mgda": 2.0},
    **{"cagrad": 1.0, "imtl_g": 1.0, "nash_mtl": 2.0, "aligned_mtl": 4.0},
}
OVERRIDES = {
    "HQF": {"nash_mtl": 20.0, "imtl_g": 2.0},
    "CQF": {"nash_mtl": 0.5},
}
AS_THERE = {
    # Their ball has this radius, and its best point is not scaled down.
    "cagrad": on_trunk(partial(mtl.cagrad, c=0.5, rescale=0)),
    # Never longer than this.
    "nash_mtl": on_trunk(partial(mtl.nash_mtl, max_norm=1.0)),
}


def times(name: str) -> dict[str, float]:
    """Method -> what the rate of this problem is multiplied by."""
    return TIMES | OVERRIDES.get(name, {})


def methods(name: str) -> dict[str, Method]:
    """Those of a problem."""
    known = METHODS | AS_THERE
    return {
        method: at_rate(known[method], factor) for method, factor in times(name).items()
    }
