"""The advice on docs/choosing.md: which method to try, where.

Methods that are named here and are not (yet) public are left out of the page.
"""

from typing import NamedTuple


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
`mtl.task_cosines` of the optimizer state, and at a second run with one loss multiplied
by 1000 (`mtl-optax study` does that).
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
        "Some tasks still learn while others have converged",
        ("dwa", "gradnorm", "cdtt"),
        "They compare each loss, or gradient, with its own past. `cdtt` never makes "
        "a short update, so shrink the learning rate; on its authors' two logic gates "
        "it did better than the sum, and no better than `imtl_g`.",
    ),
    Advice(
        "A certain trade-off, or a whole Pareto front",
        ("stch", "tchebycheff", "pbi", "cosmos", "constant"),
        "Give a preference; weights of a sum cannot reach concave parts of a front. "
        "Other methods with `preference` keep it as a tendency only.",
    ),
    Advice(
        "Tasks have an order of importance",
        ("nmt", "pcd", "constant"),
        "`nmt` trains them one after the other and keeps what the former reached, "
        "`pcd` lets one task lead. Both are about one trade-off, not about scales. On "
        "digits before parity (`mtl-optax study priority`) a fixed weight of 0.3 to 3 "
        "was better than `nmt` in both.",
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
        "one network. On six tasks of digits in two known blocks (`mtl-optax study "
        "groups`) the first found them in 4 of 5 seeds with an MLP and in none with a "
        "CNN, and networks of their own for its groups gained 1.2 and 0.9 points of "
        "accuracy over joint training; the second found them in 5 and 4 and gained 0.4 "
        "and 2.1, with more steps a batch; gradient methods gained nothing. Measure "
        "`task_affinity` at every step where that is affordable, and with plain steps "
        "ahead: Adam's momentum holds the gradients of all tasks. Neither has much to "
        "say about two tasks: `selective_groups` never merges them unless `preference` "
        "is set.",
    ),
    Advice(
        "Shared layers have a batch normalisation for each task",
        ("cso", "cso_project"),
        "`cso` reads off these which task uses a channel most, and makes the others "
        "give way there; `cso_project` is told. On "
        "digits (`mtl-optax study priority`) its first phase gained a point, the "
        "projection nothing.",
    ),
    Advice(
        "Training fits and test suffers, and a step may take twice as long",
        ("flat_mtl",),
        "Around any method of this page. On digits with wrong or missing labels "
        "(`mtl-optax study flat`) minima were flatter each time, test accuracy higher "
        "by at most 0.15 points on average and calibration worse, where its authors "
        "say better; joint SAM was as accurate. Tune the radius: with few labels, and "
        "around MGDA, the smallest did best.",
    ),
)
