"""Tables that the study of task groups shows beside those of every study."""

from typing import NamedTuple

from numpy.typing import NDArray

from mtl_optax.study.blocks import truth
from mtl_optax.study.compare import Results, Shown
from mtl_optax.study.halves import KINDS, SGD_RATE, STEPS
from mtl_optax.study.verdicts import groups, paired


class Found(NamedTuple):
    """The groups of a method."""

    at_end: list[groups.Groups]  # one a seed
    late: str  # share of the second half of training in which they are the blocks


def found(results: Results) -> dict[str, Found]:
    """Of all methods that make groups."""
    blocks, made = truth(len(results.tasks)), {}
    for method, outcome in results.outcomes.items():
        if method == "joint" and len(results.tasks) > 2:
            affinity = outcome.readings["affinity"][-1, 0]
            made["joint"] = Found(groups.tag_groups(affinity), "-")
        elif "groups" in outcome.readings:
            labels = outcome.readings["groups"][:, 0]
            share = groups.share_recovered(labels, blocks)
            at_end = list(map(groups.partition, labels[-1]))
            made[method] = Found(at_end, f"{100 * share:.0f} %")
    return made


def group_table(results: Results) -> Shown | None:
    """In how many seeds the blocks are recovered, and what else was chosen."""
    made, blocks = found(results), truth(len(results.tasks))
    if not made:
        return None
    rows = [
        (
            "joint, TAG" if method == "joint" else method,
            [
                groups.word(x.at_end, blocks).removeprefix("blocks in "),
                *(x.late, groups.counted(x.at_end, results.tasks)),
            ],
        )
        for method, x in made.items()
    ]
    head = ["method", "seeds with the blocks", "second half", "groups (seeds)"]
    return Shown("Groups", "At the end of training.", head, rows)


def mean_decrease(results: Results) -> NDArray:
    """Mean over records `[seeds, KINDS, STEPS, T]`, of 100 times the fall of logs."""
    values = results.outcomes["joint"].readings["decrease"][:, 0]
    return 100 * values.mean(axis=0)


def decrease_table(results: Results) -> Shown | None:
    """How far each loss falls in one step on all, and how much further otherwise."""
    if "joint" not in results.outcomes:
        return None
    values = mean_decrease(results)
    rows = [
        (
            f"{kind}: {step}{', more than that' if s else ''}",
            [paired.change(x[:, t]) for t in range(len(results.tasks))],
        )
        for k, kind in enumerate(KINDS)
        for s, step in enumerate(STEPS)
        for x in [values[:, k, s] - (values[:, k, 0] if s else 0)]
    ]
    return Shown(
        "What one batch does for each loss",
        "100 times the fall of the log loss on the batch, about percent, in the joint "
        "step; below it, paired, how much more it falls in the step of the task's own "
        "half alone, and in the steps of both halves one after the other (two steps), "
        "mean over both orders. 95 % intervals over seeds. All start from the same "
        "parameters, batch and state of the optimiser, those of the joint run; plain "
        f"SGD, of rate {SGD_RATE:g}, has no state.",
        ["step", *results.tasks],
        rows,
    )
