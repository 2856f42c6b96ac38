"""The parts of a suite side by side: scores of each method in each part."""

from numpy.typing import NDArray

from mtl_optax.study.compare import Results
from mtl_optax.study.suite import Whole
from mtl_optax.study.verdicts import paired


def scores(whole: Whole) -> list[tuple[str, list[str]]]:
    """A row a method, a column a part: mean, and interval against the baseline."""
    every = whole.results.values()
    methods = dict.fromkeys(method for results in every for method in results.outcomes)
    return [(method, [_score(x, method) for x in every]) for method in methods]


def _score(results: Results, method: str) -> str:
    if method not in results.outcomes:
        return "-"
    own = _mean(results, method)
    text, base = f"{own.mean():.1f}", results.study.baseline
    if method == base or base not in results.outcomes or len(own) < 2:
        return text
    found = paired.interval(own - _mean(results, base))
    return f"{text} {paired.bracket(found.low, found.high)}"


def _mean(results: Results, method: str) -> NDArray:
    """Over tasks, `[seeds]`."""
    return results.outcomes[method].score[0].mean(axis=-1)
