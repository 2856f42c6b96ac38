"""Two claims about negative transfer, of the field and of ours."""

from benchmarks.studies.repairs.arms import DAMAGED, GRADIENT, LONGER, WIDER
from benchmarks.studies.repairs.rule import FIXED, Parts, Tried, tried
from mtl_optax.study.engine.methods import BASELINE
from mtl_optax.study.report.claims import Claim, Measured, of_runs
from mtl_optax.study.report.paired import POINTS, minus

MOST = 50.0  # percent: who gives back more has repaired most of it
METHODS = Claim(
    4,
    "Gradient methods repair negative transfer",
    "PCGrad: Yu et al. 2020, arXiv 2001.06782; CAGrad: Liu et al. 2021, arXiv "
    "2110.14048; and what followed them",
    "Tasks lose by joint training because their gradients conflict; a method that "
    "resolves the conflict gives the points back.",
    "second-hand",
    "repairs",
)
MEANS = Claim(
    4,
    "Rate, steps and width repair negative transfer",
    "This repository, benchmarks/results/arch, 2026 (the same data, and seeds 0 to 4 "
    "as here: repeated, not independent)",
    "Tuning the rate takes most of the loss away, a wider trunk most of the rest; "
    "whether more steps do was open.",
    "measured by us",
    "repairs",
)


def methods(parts: Parts) -> list[Measured]:
    """At the usual rate, and beyond what the rate does."""
    fixed, best = _by_name(parts, FIXED), _by_name(parts, None)
    named = [name for name in GRADIENT if name in fixed]
    return [
        x
        for name in named
        for x in (_share(fixed[name]), _beyond(best[name], best[BASELINE]))
    ]


def means(parts: Parts) -> list[Measured]:
    """The loss itself, and what gives it back without looking at gradients."""
    fixed, best = _by_name(parts, FIXED), _by_name(parts, None)
    start, rows = fixed[BASELINE], []
    for t, task in zip(start.damaged, DAMAGED, strict=True):
        what = f"{BASELINE} at {FIXED:g}: {task} minus that of single tasks"
        rows.append(of_runs(what, start.change[:, t], "below", -POINTS, "points"))
    rows.append(_share(best[BASELINE], "at its best rate"))
    rows += [_share(fixed[x]) for x in (LONGER, WIDER, "width_4") if x in fixed]
    wide = [x for x in (WIDER, "width_4") if x in best]
    return [*rows, *(_beyond(best[x], best[BASELINE]) for x in wide)]


def _by_name(parts: Parts, rate: float | None) -> dict[str, Tried]:
    return {own.name: own for own in tried(parts, rate)}


def _share(own: Tried, where: str = f"at {FIXED:g}") -> Measured:
    what = f"{own.name} {where}: share of the lost points given back"
    return Measured(what, *own.share, "above", MOST, "%", len(own.score))


def _beyond(own: Tried, base: Tried) -> Measured:
    return of_runs(
        f"{own.name}, best rate: {' and '.join(DAMAGED)} minus {base.name} at its best",
        minus(own.of_damaged(own.score), base.of_damaged(base.score)),
        *("above", 0),
        unit="points",
    )


def of_parts(parts: Parts) -> list[tuple[Claim, list[Measured]]]:
    """Both claims, each with what bears on it."""
    return [(METHODS, methods(parts)), (MEANS, means(parts))]
