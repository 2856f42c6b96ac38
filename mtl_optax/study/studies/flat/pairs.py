"""The study of flat minima: who is compared with whom, and their differences."""

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.outcome import Outcome
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts.flat import CLAIMS, Tally, tally

SAM = "sam"
PLAINS = ("mean", "mgda", "pcgrad", "cagrad", "imtl_g")
# Method -> the one without perturbation. Joint SAM follows the sum, which is the mean
# to Adam.
PLAIN = {f"f_{plain}": plain for plain in PLAINS} | {SAM: "mean"}


def values(outcome: Outcome, metric: str) -> NDArray:
    """`[seeds, T]`, at the chosen radius, on the split where the metric is reported."""
    return outcome.metrics[CLAIMS[metric].split][metric][outcome.chosen[0], 0]


def difference(
    outcomes: dict[str, Outcome], method: str, other: str, metric: str
) -> NDArray:
    """`[seeds, T]`, the method minus the other one."""
    return values(outcomes[method], metric) - values(outcomes[other], metric)


def against_plain(methods: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pairs that are both there."""
    return [(m, PLAIN[m]) for m in methods if PLAIN.get(m) in methods]


def against_sam(methods: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every F- method with joint SAM."""
    return [(m, SAM) for m in methods if m in PLAIN and m != SAM and SAM in methods]


def tallies(whole: Whole, method: str, other: str) -> dict[str, Tally]:
    """Metric -> what all conditions say of the two methods."""
    return {
        metric: tally(
            np.stack(
                [
                    difference(results.outcomes, method, other, metric)
                    for results in whole.results.values()
                ]
            ),
            claim.sign,
        )
        for metric, claim in CLAIMS.items()
    }
