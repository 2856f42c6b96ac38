"""The claim of Elich et al. on conflicts, and what was measured."""

from benchmarks.studies.conflicts.pairs import (
    ALONE,
    SAMPLES,
    TASKS,
    epochs,
    kinds,
    statistics,
)
from mtl_optax.study.engine.study import StudyResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs

# Fixed before anything was measured: "comparable" is nine tenths.
COMPARABLE = 0.9
CLAIM = Claim(
    number=7,
    title="Conflicts of angle are not special to tasks; differences of magnitude are",
    source="Elich et al. 2024, arXiv 2311.04698",
    wording="Spread of cosines, and conflict, are comparable or larger between samples "
    "of one task than between tasks: no evidence that conflict of angle is special to "
    "multi-task learning. Magnitudes are less similar between tasks. (We take "
    f"{COMPARABLE:g} times as much as comparable.)",
    read="abstract and specification",
    study="conflicts",
)
SAID = {
    "spread": ("sd of cosines", "not below", COMPARABLE),
    "conflicts": ("share of cosines below 0", "not below", COMPARABLE),
    "magnitude": ("magnitude similarity", "above", 1.0),
}


def measured(result: StudyResult) -> list[Measured]:
    """Ratios between samples over between tasks, at equal scales."""
    rows = []
    for name, part in result.parts.items():
        if set(part.part.scales) != {1}:
            continue
        windows = epochs(part)
        found = {x: statistics(own, windows) for x, own in kinds(part).items()}
        for key, (what, claimed, bound) in SAID.items():
            for kind in (SAMPLES, ALONE):
                ratio = found[kind][key] / found[TASKS][key]
                title = f"{name}: {what}, {kind} over tasks"
                rows.append(of_runs(title, ratio, claimed, bound))
    return rows
