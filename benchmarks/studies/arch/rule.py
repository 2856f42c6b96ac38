"""Whether an architecture repairs what joint training in one trunk costs a task."""

from numpy.typing import NDArray

from mtl_optax.study.engine.methods import SINGLE_TASK
from mtl_optax.study.engine.study import Judgement, MethodResult
from mtl_optax.study.report import paired
from mtl_optax.study.report.paired import INTERVALS, POINTS, changes, loses, word

RULE = (
    f"A task loses when its score, minus that of a network of its own at the same "
    f"seed, is below -{POINTS:g} points in the mean over seeds; that it does so in "
    f"plain hard sharing is the negative transfer in question. An architecture "
    f"repairs a task that loses there if it does not lose with it and the interval of "
    f"the paired difference from hard sharing lies above 0; in part, if it still loses "
    f"and that interval lies above 0; open, if it does not lose and the interval holds "
    f"0; else not. It harms a task that loses with it alone. {INTERVALS}"
)
CONTROL = (
    "More parameters alone may do as much. So each architecture stands beside hard "
    "sharing as well: the narrowest trunk whose network has no fewer parameters. It "
    "does more if the interval of the paired difference of Δm, minus "
    "that of this network, lies below 0 (Δm: lower is better), and less if above."
)
# (whether the task still loses, whether it is better than in hard sharing) -> word
WORDS = {
    (False, True): "repaired",
    (True, True): "in part",
    (False, False): "open",
    (True, False): "not repaired",
}
HARMED, LOSES = "harmed", "loses"
BEYOND = {paired.BETTER: "more", paired.WORSE: "less", paired.OPEN: "as much"}
NEGATIVE = "Negative transfer in {}: {} points from networks of their own."
NONE = (
    f"No negative transfer to repair: in {{}} no task loses more than {POINTS:g} "
    f"points ({{}})."
)
SIZE = "Do more than hard sharing of their size: {}. Do less: {}."


def words(
    scores: dict[str, NDArray], tasks: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Architecture -> task -> the word of RULE, where it loses in one trunk or here.

    Args:
      scores: of single tasks, plain hard sharing, and all others, `[seeds, T]`.
      tasks: their names.
    """
    (_, single), (first, shared), *others = scores.items()
    lost = loses(shared - single)
    found = {
        first: {task: LOSES for task, lost in zip(tasks, lost, strict=True) if lost}
    }
    for name, own in others:
        still = loses(own - single)
        gains = [word(gain) == paired.BETTER for gain in (own - shared).T]
        found[name] = {
            task: WORDS[bool(still[t]), gains[t]] if lost[t] else HARMED
            for t, task in enumerate(tasks)
            if lost[t] or still[t]
        }
    return found


def beyond_size(difference: NDArray) -> str:
    """A word on Δm minus that of hard sharing of no fewer parameters, `[seeds]`."""
    found = word(difference, higher_is_better=False)
    return BEYOND.get(found, found)


def statement(
    scores: dict[str, NDArray], beyond: dict[str, str], tasks: tuple[str, ...]
) -> str:
    """On all architectures at one choice of rates.

    Args:
      scores: of single tasks, plain hard sharing, and all others, `[seeds, T]`.
      beyond: architecture -> the word of `beyond_size`, where there is a control.
      tasks: their names.
    """
    (_, single), (first, shared), *_ = scores.items()
    judged = words(scores, tasks)
    lost = judged.pop(first)
    difference = shared - single
    if lost:
        own = [tasks.index(task) for task in lost]
        text = NEGATIVE.format(first, changes(difference[:, own], tuple(lost)))
    else:
        text = NONE.format(first, changes(difference, tasks))
    for task in lost if judged else ():
        found = {name: own[task] for name, own in judged.items()}
        said = (
            f"{x}: {_named(found, x)}" for x in WORDS.values() if x in found.values()
        )
        text += f" {task} is {'; '.join(said)}."
    harmed = {x: _named(own, HARMED) for x, own in judged.items()}
    names = ", ".join(f"{x} ({own})" for x, own in harmed.items() if own)
    text += f" Tasks that lose elsewhere only: {names}." if names else ""
    if beyond:
        more, less = (_named(beyond, x) or "none" for x in ("more", "less"))
        text += f" {SIZE.format(more, less)}"
    return text


def _named(found: dict[str, str], word: str) -> str:
    return ", ".join(name for name, own in found.items() if own == word)


def alone(results: dict[str, MethodResult], tasks: tuple[str, ...]) -> Judgement:
    """Scores of one network, without a verdict; the page above compares all."""
    single, sentences = results.get(SINGLE_TASK), {}
    for name, own in results.items():
        score = own.score[0]
        pairs = zip(tasks, score.mean(axis=0), strict=True)
        each = ", ".join(f"{task} {x:.1f}" for task, x in pairs)
        sentences[name] = f"{name}: {score.mean():.2f} % over tasks ({each})."
        if single is not None and own is not single:
            numbers = changes(score - single.score[0], tasks)
            sentences[name] += f" In points from single tasks: {numbers}."
    above = dict.fromkeys(results, "see above")
    return Judgement(above, sentences, "For all together see the page above.")
