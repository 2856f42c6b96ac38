"""Who keeps both tasks when a loss is multiplied: what docstrings promise, measured."""

import math

import pandas as pd

from mtl_optax.analysis import student
from mtl_optax.catalogue.methods import methods
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.report.claims import Claim, Measured
from mtl_optax.study.report.paired import CONFIDENCE, POINTS
from mtl_optax.study.report.scale_rule import SCALES

CLAIM = Claim(
    number=5,
    title=f"One loss times {SCALES[1]}",
    source="the columns on scale invariance of IMTL (Liu et al., ICLR 2021) and "
    "Nash-MTL (Navon et al., ICML 2022); Elich et al., GCPR 2024, arXiv 2311.04698, on "
    "Adam; for each method its docstring here",
    wording="Methods that are invariant to the scale of a loss train as before when "
    "one is multiplied. The plain sum does not, and Adam does not rescue it: its "
    "invariance is partial.",
    read="specification",
    study="stress",
)
PROMISE = "does not depend on the scale of any loss"


def promised() -> list[str]:
    """The methods whose direction, by their docstrings, knows no scale of a loss."""
    both = (f"the direction {PROMISE}", f"the update {PROMISE}")
    return [row.name for row in methods() if row.invariances.startswith(both)]


def measured(means: pd.DataFrame) -> list[Measured]:
    """Of the rows of summary.csv: what the large scale does to a method's worse task.

    Means at two scales are compared as two samples (Welch): summary.csv has no runs.
    """
    ours = dict.fromkeys(promised(), "within") | {BASELINE: "below"}
    found = []
    for method, claimed in ours.items():
        own = means[means["method"] == method]
        tasks = list(dict.fromkeys(own["task"]))
        if tasks:
            what = f"{method}, test accuracy of the worse task at x{SCALES[1]}"
            worst = min((_change(own, task) for task in tasks), key=lambda x: x[0])
            bound = POINTS if claimed == "within" else -POINTS
            runs = int(own["seeds"].iloc[0])
            what = f"{what} minus at x{SCALES[0]}"
            found.append(Measured(what, *worst, claimed, bound, "points", runs))
    return found


def _change(own: pd.DataFrame, task: str) -> tuple[float, float, float]:
    """From the small to the large scale: mean, and Welch's interval."""
    rows = own[own["task"] == task].set_index("scale")
    (m0, s0, n0), (m1, s1, n1) = (
        map(float, rows.loc[scale, ["mean", "sd", "seeds"]]) for scale in SCALES
    )
    v0, v1 = s0**2 / n0, s1**2 / n1
    if not v0 + v1 > 0:  # one seed, or runs that all agree
        return m1 - m0, math.nan, math.nan
    freedom = (v0 + v1) ** 2 / (v0**2 / (n0 - 1) + v1**2 / (n1 - 1))
    # Whole degrees, rounded down, which makes the interval a little wider
    half = student.quantile(CONFIDENCE, int(freedom)) * math.sqrt(v0 + v1)
    return m1 - m0, m1 - m0 - half, m1 - m0 + half
