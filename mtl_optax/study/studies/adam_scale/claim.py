"""What Elich et al. say of Adam and the scale of losses, beside what was measured."""

from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs
from mtl_optax.study.studies.adam_scale.rule import (
    APART,
    EXACT,
    PAPERS,
    SAME,
    departures,
)

CLAIM = Claim(
    8,
    "Adam's partial invariance to the scale of losses",
    "Elich et al. 2024, arXiv 2311.04698, appendix A1.3",
    "With a frozen trunk Adam's steps in the heads do not change if losses are "
    "multiplied by constants; in a trunk that sees the sum they do. One Adam for each "
    "task, or the analytic uncertainty weighting (1 / loss), is invariant in full. "
    "SGD is not: there a constant is a learning rate of the task.",
    "specification",
    "adam_scale",
)
# What, the arm, which parts of the network, at which scales, the claimed side.
ASKED = (
    ("heads, trunk frozen, Adam", "adam_frozen", ("heads",), PAPERS, "below"),
    ("trunk, Adam", "adam", ("trunk",), PAPERS, "above"),
    ("all, one Adam a task", "adam_per_task", ("trunk", "heads"), PAPERS, "below"),
    ("all, 1 / loss, Adam", "uw_o_adam", ("trunk", "heads"), (EXACT,), "below"),
    ("all, 1 / loss, SGD", "uw_o_sgd", ("trunk", "heads"), (EXACT,), "below"),
    ("heads, trunk frozen, SGD", "sgd_frozen", ("heads",), PAPERS, "above"),
)


def measured(result: PartResult) -> list[Measured]:
    """The largest departure after the last step, a seed a run."""
    found = []
    for what, arm, kinds, scales, claimed in ASKED:
        if arm in result.methods:
            last = departures(result.methods[arm], scales)
            values = sum(last[kind][-1] for kind in kinds)
            text = f"departure of {what}, ×{', ×'.join(map(str, scales))}"
            bound = SAME if claimed == "below" else APART
            found.append(of_runs(text, values, claimed, bound))
    return found
