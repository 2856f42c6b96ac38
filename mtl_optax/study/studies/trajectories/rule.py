"""Whether a method arrives at the Pareto set, and whether an objective ever rose."""

from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.studies.trajectories.measures import Measures, measures

LEFT = 0.05  # of the distance to the Pareto set: less is an arrival
ROUNDING = 1e-12  # of an objective's first value: a smaller rise is rounding
RULE = (
    f"A run arrives if at most {LEFT:.0%} of its distance to the Pareto set is left "
    "after the steps of the suite. An objective rises if a step raises it by more than "
    f"{ROUNDING:g} of its first value, which is rounding. Nothing is random here."
)


def arrived(found: Measures) -> int:
    """The number of starts."""
    return int((found.left <= LEFT).sum())


def raised(found: Measures) -> int:
    """The number of starts from which some step raised an objective."""
    return int((found.rise > ROUNDING).sum())


def judge(
    results: dict[str, MethodResult], tasks: tuple[str, ...], name: str
) -> Judgement:
    """Of each method."""
    del tasks
    found = {method: measures(name, own) for method, own in results.items()}
    words, sentences = {}, {}
    for method, own in found.items():
        every = len(own.left)
        words[method] = f"arrives from {arrived(own)} of {every}"
        sentences[method] = (
            f"{method} arrives from {arrived(own)} of {every} starts and raises an "
            f"objective on the way from {raised(own)}."
        )
    sure = [m for m, x in found.items() if arrived(x) == len(x.left) and not raised(x)]
    return Judgement(
        words,
        sentences,
        "Without ever raising an objective arrive from every start: "
        f"{', '.join(sure) or 'none'}.",
    )
