"""Two claims of Kurin et al., and what is measured of each."""

from benchmarks.studies.scalarisation.rule import (
    CONTROL,
    KURIN,
    PLAIN,
    REGULARISED,
    Runs,
    at_one_rate,
    ratio,
    tuned,
)
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs

SOURCE = "Kurin et al., NeurIPS 2022, arXiv 2201.04122"
BEATS = Claim(
    3,
    "No method beats the tuned sum",
    SOURCE,
    "With the usual regularisation the plain sum is as good as special methods, or "
    "better: none of PCGrad, MGDA, IMTL, GradDrop, RLW beats it beyond 95 % intervals.",
    "abstract, specification",
    "scalarisation",
)
REGULARISES = Claim(
    3,
    "Special methods act as regularisation",
    SOURCE,
    "Many special methods are partly forms of regularisation. In its direction: "
    "without other regularisation they end with a higher training loss and a smaller "
    "gap to validation than the sum.",
    "abstract, specification",
    "scalarisation",
)


def beats(result: PartResult) -> list[Measured]:
    """Test accuracy of every method minus that of the sum, both regularised."""
    found = tuned(result)
    base = found.pop(BASELINE)
    found.pop(CONTROL, None)
    return [
        of_runs(
            f"{name}, regularised: test accuracy minus that of {BASELINE}",
            own.accuracy - base.accuracy,
            *("not above", 0),
            unit="points",
        )
        for name, own in found.items()
    ]


def regularises(result: PartResult) -> list[Measured]:
    """Training loss and gap, without regularisation, of the methods of the source."""
    found = at_one_rate(result)
    base = found[BASELINE]
    named = {name: found[name] for name in KURIN if name in found}
    return [
        x
        for name, own in named.items()
        for x in (_loss(name, own, base), _gap(name, own, base))
    ]


def _loss(name: str, own: Runs, base: Runs) -> Measured:
    found = ratio(own.train, base.train)
    what = f"{name}, plain: training loss over that of {BASELINE}"
    return Measured(what, *found, "above", 1.0, "", len(base.train))


def _gap(name: str, own: Runs, base: Runs) -> Measured:
    what = f"{name}, plain: gap minus that of {BASELINE}"
    return of_runs(what, 100 * (own.gap - base.gap), "below", 0, "100 × nat")


def of_parts(parts: dict[str, PartResult]) -> list[tuple[Claim, list[Measured]]]:
    """Both claims, each with what bears on it."""
    return [
        (BEATS, beats(parts[REGULARISED])),
        (REGULARISES, regularises(parts[PLAIN])),
    ]
