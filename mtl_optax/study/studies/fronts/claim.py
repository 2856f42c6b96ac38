"""What is said of linear weights and of Tchebycheff's on concave fronts."""

from collections.abc import Mapping

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs
from mtl_optax.study.studies.fronts.measures import measures

FEW = 5.0  # percent of the runs
WIDE = 0.5  # a gap that is most of the front, whose length is about 1.5
NARROW = 0.1
MOST = 95.0  # percent of what points on the same rays dominate
COVERING = ("tchebycheff", "stch")

CLAIM = Claim(
    number=11,
    title="Concave fronts",
    source="Lin et al. 2024 (smooth Tchebycheff, 2402.19078); Lin et al. 2019 (Pareto "
    "multi-task learning, 1912.12854), on VLMOP2",
    wording="Linear weights find only the ends of a concave front; Tchebycheff "
    "scalarisation and its smooth form find all of it.",
    read="specification",
    study="fronts",
)


def measured(parts: Mapping[str, PartResult]) -> list[Measured]:
    """Of the methods that were run, on both problems."""
    found = []
    for name, part in parts.items():
        for method, own in part.methods.items():
            of = f"{name}, {method}"
            each = measures(name, own)
            gap = f"{of}: largest gap in the front"
            if method == "constant":
                what = f"{of}: runs that end between the ends"
                found.append(of_runs(what, 100 * each.between, "below", FEW, "%"))
                found.append(of_runs(gap, each.gap, "above", WIDE))
            if method in COVERING:
                what = f"{of}: volume, of what the same rays allow"
                found.append(of_runs(what, 100 * each.of_best, "above", MOST, "%"))
                found.append(of_runs(gap, each.gap, "below", NARROW))
    return found
