"""CAGrad's claim on the toy, and what is to be said against it: the rate decides."""

from mtl_optax.study.data.toy import IN_VALLEYS, STARTS, mean_loss, on_pareto_set
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, exactly
from mtl_optax.study.report.places import ends
from mtl_optax.study.studies.toy.rule import places

FAST = "mean_fast"  # the mean at FACTOR times the rate
FACTOR = 50
LOWEST = -14.8  # a mean loss above it is not that of the minimum, -15.09
# Radii of CAGrad. With 0.2 runs arrive about when these steps end, as rounding has it.
RADII = {"cagrad": 0.4, "cagrad_0.5": 0.5, "cagrad_0.8": 0.8}
LATE = {"cagrad_0.2": 0.2}

CLAIM = Claim(
    number=1,
    title="CAGrad's toy, from all starts",
    source="Liu et al. 2021 (2110.14048), section 5.1 and Figure 1; the rate: Elich et "
    "al. 2023 (2311.04698)",
    wording="CAGrad reaches the minimum of the mean loss from every start. Gradient "
    "descent on the mean (Adam, rate 1e-3) is stuck from 2 of 5. MGDA and PCGrad stop "
    "where they meet the Pareto set. At a rate of 0.05 the mean arrives from all.",
    read="specification",
    study="toy",
)


def measured(result: PartResult) -> list[Measured]:
    """Counts of starts, for the methods that were run."""
    found = []
    for method, own in result.methods.items():
        end = ends(own)[: len(STARTS)]  # further starts are not the claim's
        every, arrived = len(end), places(end).count("minimum")
        if method in RADII:
            what = f"CAGrad, c {RADII[method]}: at the minimum"
            found.append(_starts(what, arrived, every, every))
        if method == FAST:
            what = f"mean, Adam {FACTOR * 1e-3:g}: at the minimum"
            found.append(_starts(what, arrived, every, every))
        if method == "mean":
            stuck = int((mean_loss(end[:IN_VALLEYS]) > 0).sum())
            what = "mean, Adam 1e-3: stuck with a mean loss above 0"
            found.append(_starts(what, stuck, 2, every))
        if method in ("mgda", "pcgrad"):
            at = int(on_pareto_set(end).sum())
            found.append(_starts(f"{method}: on the Pareto set", at, every, every))
            what = f"{method}: mean loss of the worst end (at the minimum -15.09)"
            worst = float(mean_loss(end).max())
            found.append(exactly(what, worst, "above", LOWEST, runs=every))
    return found


def _starts(what: str, count: int, least: int, every: int) -> Measured:
    return exactly(what, count, "not below", least, f"of {every}", every)
