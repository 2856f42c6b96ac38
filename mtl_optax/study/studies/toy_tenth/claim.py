"""What Nash-MTL and FAMO claim on the toy with losses of two scales."""

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, exactly
from mtl_optax.study.report.places import ends
from mtl_optax.study.studies.toy_tenth.rule import GOAL, places

BALANCED = ("imtl_g", "nash_mtl", "mgda")

CLAIM = Claim(
    number=2,
    title="The toy with a first loss of a tenth",
    source="Liu et al. 2023 (FAMO, 2306.03792), repository; Navon et al. 2022 "
    "(Nash-MTL, 2202.01017), Figure 1",
    wording="Adam on the mean fails to reach the Pareto front in 1 out of 5 runs; "
    "balanced methods reach it in all.",
    read="code; README",
    study="toy_tenth",
)


def measured(result: PartResult) -> list[Measured]:
    """Counts of starts, for the methods of the claim that were run."""
    found = []
    for method, own in result.methods.items():
        at = places(ends(own))
        arrived, every = at.count(GOAL), len(at)
        unit = f"of {every}"
        if method == "mean":
            what, failed = "mean: not on the Pareto set", every - arrived
            found.append(exactly(what, failed, "not below", 1, unit, every))
        if method in BALANCED:
            what = f"{method}: on the Pareto set"
            found.append(exactly(what, arrived, "not below", every, unit, every))
    return found
