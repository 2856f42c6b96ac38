"""Whether an architecture repairs what joint training in one trunk costs a task."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtl_optax.study.verdicts.paired import INTERVALS, POINTS, changes, interval, loses

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
MORE, LESS = "more", "less"  # than hard sharing of its size
REPAIRS, PARTLY, OPEN, NOT, HARMS = (
    "repaired",
    "in part",
    "open",
    "not repaired",
    "harmed",
)


class Scores(NamedTuple):
    """Of one architecture, `[seeds, T]`, in points."""

    own: NDArray
    shared: NDArray  # plain hard sharing
    single: NDArray  # a network for each task


def words(scores: Scores, tasks: tuple[str, ...]) -> dict[str, str]:
    """Task -> the word of RULE, for those that lose in hard sharing or in this."""
    lost = loses(scores.shared - scores.single)
    loses_now = loses(scores.own - scores.single)
    gain = scores.own - scores.shared
    return {
        task: _word(bool(loses_now[t]), gain[:, t]) if lost[t] else HARMS
        for t, task in enumerate(tasks)
        if lost[t] or loses_now[t]
    }


def _word(loses_now: bool, gain: NDArray) -> str:
    sure = len(gain) > 1 and bool(interval(gain).low > 0)
    if sure:
        return PARTLY if loses_now else REPAIRS
    return NOT if loses_now else OPEN


def beyond_size(difference: NDArray) -> str:
    """A word on Δm minus that of hard sharing of no fewer parameters, `[seeds]`."""
    if len(difference) < 2:
        return "unknown"
    found = interval(difference)
    if found.high < 0:
        return MORE
    return LESS if found.low > 0 else "as much"


def statement(
    scores: dict[str, Scores], beyond: dict[str, str], tasks: tuple[str, ...]
) -> str:
    """On all architectures at one choice of rates.

    Args:
      scores: of each, plain hard sharing first.
      beyond: architecture -> the word of `beyond_size`, where there is a control.
      tasks: their names.
    """
    first = next(iter(scores))
    difference = scores[first].shared - scores[first].single
    lost = np.flatnonzero(loses(difference))
    if not lost.size:
        text = (
            f"No negative transfer to repair: in {first} no task loses more than "
            f"{POINTS:g} points ({changes(difference, tasks)})."
        )
    else:
        named = tuple(tasks[t] for t in lost)
        text = (
            f"Negative transfer in {first}: {changes(difference[:, lost], named)} "
            f"points from networks of their own."
        )
    judged = {x: words(own, tasks) for x, own in scores.items() if x != first}
    for t in lost:
        found = {
            word: [x for x, own in judged.items() if own[tasks[t]] == word]
            for word in (REPAIRS, PARTLY, OPEN, NOT)
        }
        said = (f"{word}: {', '.join(names)}" for word, names in found.items() if names)
        text += f" {tasks[t]} is {'; '.join(said)}." if judged else ""
    harms = [
        f"{x} ({', '.join(task for task, word in own.items() if word == HARMS)})"
        for x, own in judged.items()
        if HARMS in own.values()
    ]
    text += f" Tasks that lose elsewhere only: {', '.join(harms)}." if harms else ""
    if not beyond:
        return text
    for which in (MORE, LESS):
        names = ", ".join(x for x, word in beyond.items() if word == which)
        than = " than hard sharing of their size" if which == MORE else ""
        text += f" Do {which}{than}: {names or 'none'}."
    return text
