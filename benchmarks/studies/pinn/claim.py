"""What is claimed of ConFIG, M-ConFIG and second order, and what was measured."""

from collections.abc import Iterator

import numpy as np

from benchmarks.studies.pinn.methods import LBFGS, MCONFIG
from benchmarks.studies.pinn.rule import aligned, error
from mtl_optax.study.engine.study import MethodResult, StudyResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs

CONFIG = "conflictfree"
OTHERS = {"unitary": "the plain sum", "pcgrad": "PCGrad", "imtl_g": "IMTL-G"}
PASSES, SECOND = "passes", "lbfgs"  # ends of the names of parts
CLAIM = Claim(
    number=12,
    title="Conflicts in physics-informed networks: ConFIG, M-ConFIG, second order",
    source="Liu, Chu and Thuerey 2024, ConFIG, arXiv:2408.11104; Wang, Bhartari, Li, "
    "Perdikaris 2025, Gradient Alignment in Physics-informed Neural Networks, "
    "arXiv:2502.00604",
    wording="ConFIG ends with a lower error than the plain sum, PCGrad and IMTL-G at "
    "equal steps, and M-ConFIG with a lower one than ConFIG at equal cost. (Quasi) "
    "second-order optimisers mitigate gradient conflicts inherently, and are better "
    "than first-order ones. Of the latter claim SOAP is the source's main example; "
    "measured is L-BFGS.",
    read="specification; of Wang et al. the abstract",
    study="pinn",
)
UNIT = "log10"


def measured(result: StudyResult) -> list[Measured]:
    """Of each equation that was trained."""
    equations = dict.fromkeys(name.partition("_")[0] for name in result.parts)
    return [x for equation in equations for x in _of(result, equation)]


def methods(
    result: StudyResult, equation: str, end: str = ""
) -> dict[str, MethodResult]:
    """Those of one part of an equation, or none."""
    part = result.parts.get(f"{equation}_{end}" if end else equation)
    return {} if part is None else part.methods


def _of(result: StudyResult, equation: str) -> Iterator[Measured]:
    whole, short, second = (methods(result, equation, x) for x in ("", PASSES, SECOND))
    say = equation.capitalize()
    for name, called in OTHERS.items():
        if name in whole and CONFIG in whole:
            ratio = error(whole[CONFIG]) - error(whole[name])
            yield of_runs(
                f"{say}: error of ConFIG to {called}", ratio, "below", 0, UNIT
            )
    if MCONFIG in whole and CONFIG in short:
        what = f"{say}: error of M-ConFIG to ConFIG, equal backward passes"
        ratio = error(whole[MCONFIG]) - error(short[CONFIG])
        yield of_runs(what, ratio, "below", 0, UNIT)
    if LBFGS in second and whole:
        own = second[LBFGS]
        best = np.min([error(x) for x in whole.values()], axis=0)
        what = f"{say}: error of L-BFGS to the best other of each seed"
        yield of_runs(what, error(own) - best, "below", 0, UNIT)
        if "unitary" in whole:
            what = f"{say}: alignment of gradients, L-BFGS minus Adam on the plain sum"
            yield of_runs(what, aligned(own) - aligned(whole["unitary"]), "above")
