"""What TorchJD says of UPGrad on these quadratics, and of PCGrad with two tasks."""

from collections.abc import Mapping

import numpy as np

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, exactly
from mtl_optax.study.studies.trajectories.measures import measures, whole_path
from mtl_optax.study.studies.trajectories.rule import LEFT

# Rounding; UPGrad stops where gradients are opposite to the root of float64's eps.
SAME = 1e-6

CLAIM = Claim(
    number=10,
    title="Trajectories on three quadratics",
    source="Quinton and Rey 2024 (UPGrad, 2406.16232); TorchJD, tests/trajectories",
    wording="UPGrad converges to the Pareto set, and no step conflicts with a "
    "gradient. With two objectives PCGrad is equivalent to UPGrad.",
    read="code; specification",
    study="trajectories",
)


def measured(parts: Mapping[str, PartResult]) -> list[Measured]:
    """The worst over all starts of each problem."""
    found = []
    for name, part in parts.items():
        upgrad, pcgrad = (part.methods.get(x) for x in ("upgrad", "pcgrad"))
        if upgrad is None:
            continue
        own = measures(name, upgrad)
        starts = len(own.left)
        what = f"{name}, upgrad: share of the distance to the Pareto set that is left"
        left = 100 * float(own.left.max())
        found.append(exactly(what, left, "below", 100 * LEFT, "%", starts))
        what = f"{name}, upgrad: lowest cosine of a step with a gradient it descends"
        cosine = float(own.cosine.min())
        found.append(exactly(what, cosine, "not below", -SAME, runs=starts))
        if pcgrad is not None:
            ends = (whole_path(name, x)[-1] for x in (upgrad, pcgrad))
            apart = float(np.abs(np.subtract(*ends)).max())
            what = f"{name}: from upgrad's end points to pcgrad's at half the rate"
            found.append(exactly(what, apart, "below", SAME, runs=starts))
    return found
