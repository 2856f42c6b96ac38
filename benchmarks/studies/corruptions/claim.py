"""What Elich et al. say of corrupted images, beside what was measured."""

from benchmarks.studies.corruptions.rule import delta
from mtl_optax.study.engine.methods import BASELINE, SINGLE_TASK
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.report.claims import Claim, Measured, of_runs

CLAIM = Claim(
    9,
    "Transfer to corrupted images",
    "Elich et al. 2024, arXiv 2311.04698, appendix A6",
    "With a frozen trunk and heads trained again on corrupted images there is light "
    "evidence that multi-task learning can lead to superior transferability; their "
    "outcome is mixed over tasks and corruptions (Cityscapes, NYUv2).",
    "abstract and specification",
    "corruptions",
)


def measured(result: PartResult) -> list[Measured]:
    """Delta in the mean over tasks, corruptions and severities, a seed a run."""
    if not {BASELINE, SINGLE_TASK} <= set(result.methods):
        return []
    found = delta(result.methods[BASELINE], result.methods[SINGLE_TASK])
    what = f"delta of {BASELINE} against {SINGLE_TASK}, mean over tasks"
    return [of_runs(what, found.mean(axis=(0, 1, 3)), "below", 0.0, "%")]
