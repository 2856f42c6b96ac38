"""Whether a method covers a known front or finds its ends."""

from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report.paired import mean_sd
from mtl_optax.study.studies.fronts.claim import FEW, NARROW
from mtl_optax.study.studies.fronts.measures import END, Measures, measures

RULE = (
    f"A method covers the front if from every start each point of it has a run within "
    f"{NARROW:g}, in the plane of the losses. It finds the ends if from every start "
    f"less than {FEW:g} % of its runs have both losses above {END:g}. Volumes end at "
    "(1, 1). The table of losses shows one preference, that with the lowest mean of "
    "both; all of them are in metrics.csv and in the picture."
)


def word(found: Measures) -> str:
    """The verdict."""
    if (found.gap < NARROW).all():
        return "covers the front"
    if (100 * found.between < FEW).all():
        return "finds the ends"
    return "covers a part"


def judge(
    results: dict[str, MethodResult], tasks: tuple[str, ...], name: str
) -> Judgement:
    """Of each method."""
    del tasks
    found = {method: measures(name, own) for method, own in results.items()}
    words = {method: word(own) for method, own in found.items()}
    sentences = {
        method: f"{method} {words[method]}: {mean_sd(100 * own.volume)} % of its "
        f"volume, largest gap {mean_sd(own.gap, 3)}, "
        f"{mean_sd(100 * own.between)} % of the runs between the ends."
        for method, own in found.items()
    }
    covering = [method for method, said in words.items() if said == "covers the front"]
    return Judgement(
        words, sentences, f"The front is covered by {', '.join(covering) or 'none'}."
    )
