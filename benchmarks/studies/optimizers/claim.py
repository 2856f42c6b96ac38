"""The claim of Elich et al. on Adam, and what was measured."""

from benchmarks.studies.optimizers.fronts import ADAM, SGD, conditions, shares
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs

CHANCE = 50.0  # percent, of two optimisers with as many runs
CLAIM = Claim(
    number=6,
    title="Adam is on the Pareto front more often than SGD with momentum",
    source="Elich et al. 2024, arXiv 2311.04698",
    wording="Across methods, runs with Adam are on the Pareto front more often than "
    "runs with SGD and momentum (Cityscapes, NYUv2, CelebA).",
    read="abstract and specification",
    study="optimizers",
)


def measured(result: StudyResult) -> list[Measured]:
    """Adam's share of the front of both, in each condition."""
    return [
        of_runs(
            f"{condition.name}: Adam's share of the front, {what}",
            shares(condition, (ADAM, SGD), tuned)[ADAM],
            *("above", CHANCE, "%"),
        )
        for condition in conditions(result)
        for tuned, what in ((False, "all rates"), (True, "tuned"))
    ]
