"""The methods that a study can name: a table, in which each is one line.

One that needs settings of its own is a `partial` with a comment that says why; one that
takes `key` gets the seed of its run.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import optax
from jax.typing import ArrayLike

import mtl_optax as mtl
from mtl_optax.study.engine import perturbed
from mtl_optax.study.engine import transformations as made
from mtl_optax.study.engine.transformations import Method

BASELINE = "unitary"
SINGLE_TASK = "single_task"
ALL = "all"  # of the command line: every method

# Those that take no setting but the number of tasks, and a key if they draw
PLAIN = (
    *("unitary", "mean", "rlw", "uw", "imtl_l", "dwa", "gls", "scale_invariant"),
    *("stch", "tchebycheff", "pbi", "cosmos", "famo", "mgda", "cagrad", "pcgrad"),
    *("gradvac", "imtl_g", "nash_mtl", "fairgrad", "upgrad", "dualproj"),
    *("conflictfree", "aligned_mtl", "gradnorm", "cdtt", "sdmgrad", "modo", "pcd"),
    *("uw_o", "uw_so", "ldc", "metabalance"),
    *("imgrad", "conic", "balancer"),
    *("epo", "pmgda"),  # with equal preferences
)
TABLE: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    **{name: getattr(mtl, name) for name in PLAIN},
    # Few tasks leave room for no Byzantine one: the row nearest to the others.
    "krum": partial(mtl.krum, num_byzantine=0),
    # Few groups, as there are few tasks; of two tasks each is one.
    "go4align": lambda num_tasks: mtl.go4align(num_tasks, num_groups=min(2, num_tasks)),
    "graddrop": mtl.graddrop,
    # As many as can be spared, which of two is none, so that it is the mean.
    "trimmed_mean": lambda num_tasks: mtl.trimmed_mean(
        num_tasks, trim_number=(num_tasks - 1) // 2
    ),
    "excess_mtl": mtl.excess_mtl,
    "db_mtl": mtl.db_mtl,
    "moco": mtl.moco,
    "sam_gs": mtl.sam_gs,
}
EVERY = (*TABLE, SINGLE_TASK)  # what ALL stands for; a step of the others costs several
METHODS: dict[str, Method] = {
    **{name: made.on_trunk(factory) for name, factory in TABLE.items()},
    SINGLE_TASK: made.single_task,
    "f_mean": perturbed.flattened(mtl.mean),
    "f_mgda": perturbed.flattened(mtl.mgda),
    "f_pcgrad": perturbed.flattened(mtl.pcgrad),
    "f_cagrad": perturbed.flattened(mtl.cagrad),
    "f_imtl_g": perturbed.flattened(mtl.imtl_g),
    "s_mean": perturbed.lightly_flattened(mtl.mean),
    "s_cagrad": perturbed.lightly_flattened(mtl.cagrad),
    "sam": perturbed.sam,
    "selective_groups": made.selective_groups,
    # The same with a preference that is a number, not the median.
    "selective_preference": partial(made.selective_groups, preference=0.0),
    "tag": made.tag,
    # They weigh heads too, and see batches of validation data. The step ahead is 0.1,
    # as LibMTL's, for auto_lambda too: after Adam there is no learning rate to take.
    "auto_lambda": made.bilevel(mtl.auto_lambda, learning_rate=0.1),
    "moml": made.bilevel(mtl.moml),
    "forum": made.bilevel(mtl.forum),
    "nmt": made.nmt,
    "weighted": made.weighted,
}
# Public methods that the table leaves out, each with the reason.
LEFT_OUT = {
    "flat_mtl": "wraps others: f_mean, f_mgda and so on",
    "samo": "wraps others: s_mean, s_cagrad",
    "task_affinity": "changes no gradient, it measures: tag",
    "cso": "needs a normalisation for each task: of the study of priority",
    "mconfig": "contains its Adam, and saves backward passes: a step is all it is for",
    "cso_project": "needs the first task of each channel, which cso finds",
    "constant": "its weights are the user's choice: weighted, single_task",
}
# Their task weights tell no shares: of gradients of log losses; of each leaf apart; of
# the smaller part of an update; of one task of each run.
NO_SHARES = ("db_mtl", "metabalance", "forum", SINGLE_TASK)


class Optimizer(NamedTuple):
    """What follows the aggregator."""

    make: Callable[..., optax.GradientTransformation]  # of a learning rate or schedule
    learning_rate: float  # where the user gives none


OPTIMIZERS = {
    "adam": Optimizer(optax.adam, 3e-3),
    "sgd": Optimizer(partial(optax.sgd, momentum=0.9), 3e-2),
    "gd": Optimizer(optax.sgd, 3e-2),
    # All matrices, those of heads too; for biases it is Adam with the same rate.
    "muon": Optimizer(optax.contrib.muon, 1e-2),
}
# (learning rate, steps) -> what an optimiser takes
SCHEDULES: dict[str, Callable[[ArrayLike, int], Any]] = {
    "cosine": optax.cosine_decay_schedule,
    "constant": lambda learning_rate, steps: learning_rate,
}
