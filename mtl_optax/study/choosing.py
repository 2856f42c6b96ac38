"""The page docs/choosing.md, which `mtl-optax methods --markdown` prints.

The advice is written here; the rest comes from the docstrings, through the catalogue. A
test compares the committed page with what this gives. Methods that are not (yet) public
are left out of the advice.
"""

from typing import NamedTuple

import mtl_optax as mtl
from mtl_optax.study.catalogue import COSTS, INFERRED, Method, methods


class Advice(NamedTuple):
    """A row of the guide."""

    situation: str
    names: tuple[str, ...]  # of methods, the first to try first
    why: str


INTRODUCTION = """\
# Which method?

Written by `mtl-optax methods --markdown > docs/choosing.md`; change the docstrings, or
the advice in `mtl_optax/study/choosing.py`, not this page.

**Start with `unitary`**, the plain sum of the losses, with the learning rate tuned on
validation data. Where the losses have comparable scales no method was better than it on
handwritten digits (`mtl-optax study null`), and published comparisons that tune the sum
as carefully as the rest say the same (Kurin et al. 2022, Xin et al. 2022). A method
earns its cost where the sum fails. To find out, look at each task beside a network of
its own (`mtl-optax study transfer` does that), at `mtl.task_weights` and
`mtl.conflicts` of the optimizer state, and at a second run with one loss multiplied by
1000 (`mtl-optax study` does that).
"""

GUIDE = (
    Advice(
        "Losses have comparable scales, or scales that you know and can divide by",
        ("unitary", "constant", "mean"),
        "One backward pass, nothing to tune but weights. Do this first.",
    ),
    Advice(
        "Losses have different units, or scales that drift; one backward pass",
        ("uw", "scale_invariant", "imtl_l", "gls", "famo", "dwa"),
        "They divide by the loss or learn to. Learned weights need hundreds of steps "
        "for a factor of 1000, and losses must stay positive.",
    ),
    Advice(
        "Losses have different units, and gradients of all tasks are affordable",
        ("imtl_g", "nash_mtl", "aligned_mtl", "conflictfree", "cagrad", "db_mtl"),
        "The weights follow from the gradients at once. `imtl_g` and `nash_mtl` do not "
        "depend on scales at all, `cagrad` lifts the small ones.",
    ),
    Advice(
        "Scales are alike, but gradients conflict and no task may get worse",
        ("upgrad", "dualproj", "cagrad", "pcgrad", "gradvac"),
        "`upgrad` conflicts with no task at any number of tasks, `pcgrad` only with "
        "two, where it is the same. Not for unlike scales: to harm none is not to "
        "train all.",
    ),
    Advice(
        "The worst task counts, or fairness between tasks",
        ("fairgrad", "nash_mtl", "tchebycheff", "stch", "mgda", "modo"),
        "`mgda` favours the task with the shortest gradient, which with unlike scales "
        "is the one with the smallest loss.",
    ),
    Advice(
        "A certain trade-off, or a whole Pareto front",
        ("stch", "tchebycheff", "pbi", "cosmos", "constant"),
        "Give a preference; weights of a sum cannot reach concave parts of a front. "
        "Other methods with `preference` keep it as a tendency only.",
    ),
    Advice(
        "Small batches: the noise of gradients is larger than their differences",
        ("moco", "sdmgrad", "modo", "cagrad"),
        "They average over steps or use a second batch. Compare with a larger batch "
        "for the sum, which costs as much.",
    ),
    Advice(
        "Some tasks or workers may be wrong",
        ("trimmed_mean", "krum", "excess_mtl"),
        "Robust to outliers and label noise; they ignore whoever differs, so not with "
        "tasks that differ by nature.",
    ),
    Advice(
        "Some tasks help one another, others disturb, and you may train apart",
        ("task_affinity", "selective_groups"),
        "`task_affinity` measures who helps whom; `mtl.select_task_groups` turns that "
        "into groups for a budget of networks. `selective_groups` makes groups inside "
        "one network. Neither has much to say about two or three tasks.",
    ),
    Advice(
        "Training fits and test suffers, and a step may take twice as long",
        ("flat_mtl",),
        "Around any method of this page. On digits with wrong or missing labels minima "
        "were flatter each time, test accuracy higher by at most 0.15 points on "
        "average, and calibration worse, where its authors say better; joint SAM was "
        "as accurate (`mtl-optax study flat`). Tune the radius: with few labels, and "
        "around MGDA, the smallest did best.",
    ),
)

REMARKS = """\
* **Memory and time.** With `mtl.lazy_task_grads` a method that sees the losses costs
  one backward pass, whatever T. With many tasks `mtl.feature_task_grads` forms the
  Gramian at the shared representation for about the price of one pass,
  `mtl.subsample_tasks` draws some of the tasks, and `mtl.every_k` holds weights for k
  steps.
* **Heads.** Put the method on what tasks share, `mtl.on_shared(method, mask)`; each
  head then gets its own gradient. Else a head is trained with the weight of its task.
* **Missing tasks.** Every method takes `active=`: missing tasks get weight 0, the
  others what the method gives them alone. `mtl.skip_nonfinite_tasks` finds NaN itself.
* **Scale of the update.** Methods that return a mean, a sum or a fixed norm need other
  learning rates under SGD. Adam is indifferent to constant factors.
* **Adam is not a cure.** It rescales parameters, not tasks: inside a shared parameter
  the largest loss still rules. `mtl.per_task(optax.scale_by_adam(), num_tasks)` in
  front of `unitary` rescales each task.
"""


def page() -> str:
    """The whole page, Markdown."""
    rows = methods()
    parts = [
        INTRODUCTION,
        _table(
            ("where you are", "try, in this order", "why, and what to look out for"),
            [_advice(row) for row in GUIDE if _public(row)],
        ),
        REMARKS,
        "## Costs\n",
        "T is the number of tasks.\n",
        _table(COSTS, [(_link(row.name), *row.costs()[1:]) for row in rows]),
        "## Methods\n",
        f"{INFERRED}\n",
        *map(_section, rows),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _public(advice: Advice) -> list[str]:
    return [name for name in advice.names if name in mtl.__all__]


def _advice(advice: Advice) -> tuple[str, ...]:
    return advice.situation, ", ".join(map(_link, _public(advice))), advice.why


def _link(name: str) -> str:
    return f"[`{name}`](#{name})"


def _section(method: Method) -> str:
    promises = (f"* **{name}**: {text}" for name, text in method.promises().items())
    return "\n".join([f"### {method.name}\n", f"{method.summary}\n", *promises, ""])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)
