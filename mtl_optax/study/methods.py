"""The methods that a study can name: a table, in which each is one line.

A method that needs settings of its own is a `partial` with a comment that says why; one
that takes `key` gets the seed of its run.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

import mtl_optax as mtl
from mtl_optax.study.asking import ASKING
from mtl_optax.study.parts import Parts, among_tasks, keyed
from mtl_optax.study.priority_methods import OF_CHANNELS, OF_TOWERS
from mtl_optax.study.problem import Problem

BASELINE = "unitary"
SINGLE_TASK = "single_task"
ALL = "all"  # of the command line: every method

TABLE: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "unitary": mtl.unitary,
    "mean": mtl.mean,
    "rlw": mtl.rlw,
    "uw": mtl.uw,
    "imtl_l": mtl.imtl_l,
    "dwa": mtl.dwa,
    "gls": mtl.gls,
    "scale_invariant": mtl.scale_invariant,
    "stch": mtl.stch,
    "tchebycheff": mtl.tchebycheff,
    "pbi": mtl.pbi,
    "cosmos": mtl.cosmos,
    "famo": mtl.famo,
    "mgda": mtl.mgda,
    "cagrad": mtl.cagrad,
    "pcgrad": mtl.pcgrad,
    "gradvac": mtl.gradvac,
    "imtl_g": mtl.imtl_g,
    "nash_mtl": mtl.nash_mtl,
    "fairgrad": mtl.fairgrad,
    "upgrad": mtl.upgrad,
    "dualproj": mtl.dualproj,
    "conflictfree": mtl.conflictfree,
    "aligned_mtl": mtl.aligned_mtl,
    "gradnorm": mtl.gradnorm,
    "cdtt": mtl.cdtt,
    "sdmgrad": mtl.sdmgrad,
    "modo": mtl.modo,
    "pcd": mtl.pcd,
    # Few tasks leave room for no Byzantine one: the row nearest to the others.
    "krum": partial(mtl.krum, num_byzantine=0),
    "graddrop": mtl.graddrop,
    # As many as can be spared, which of two is none, so that it is the mean.
    "trimmed_mean": lambda num_tasks: mtl.trimmed_mean(
        num_tasks, trim_number=(num_tasks - 1) // 2
    ),
    "excess_mtl": mtl.excess_mtl,
    "db_mtl": mtl.db_mtl,
    "moco": mtl.moco,
}
EVERY = (*TABLE, SINGLE_TASK)  # what ALL stands for
KNOWN = (*EVERY, *ASKING)
# Public methods that the table leaves out, each with the reason.
LEFT_OUT = {
    "flat_mtl": "wraps others: f_mean, f_mgda and so on of ASKING",
    "selective_groups": "contains its optimiser: in ASKING",
    "task_affinity": "changes no gradient, it measures: tag of ASKING",
    "nmt": "needs an order of the tasks: in ASKING, in the order that they have",
    "cso": "needs a normalisation for each task: in OF_CHANNELS",
    "cso_project": "needs the first task of each channel, which cso finds",
    "constant": "its weights are the user's choice; single_task is made of it",
}

# Their task weights belong to something else than the gradients, and tell no shares.
NO_SHARES = ("db_mtl",)  # gradients of log losses


class Optimizer(NamedTuple):
    """What follows the aggregator."""

    make: Callable[..., optax.GradientTransformation]  # of a learning rate or schedule
    learning_rate: float  # where the user gives none


OPTIMIZERS = {
    "adam": Optimizer(optax.adam, 3e-3),
    "sgd": Optimizer(partial(optax.sgd, momentum=0.9), 3e-2),
}
# (learning rate, steps) -> what an optimiser takes
SCHEDULES: dict[str, Callable[[ArrayLike, int], Any]] = {
    "cosine": optax.cosine_decay_schedule,
    "constant": lambda learning_rate, steps: learning_rate,
}


def transformation(
    name: str,
    problem: Problem,
    optimizer: optax.GradientTransformation,
    *,
    seed: ArrayLike,
    trained: ArrayLike,
    settings: dict[str, Any],
) -> optax.GradientTransformationExtraArgs:
    """The method on shared parameters, each head's own gradient, and the optimiser.

    Args:
      name: one of KNOWN.
      problem: whose tasks and shared parameters they are.
      optimizer: what follows the aggregator.
      seed: for the methods that draw; may be a tracer.
      trained: `[T]`, 1 for the tasks that a run of `single_task` trains, 0 for the
        others; may be a tracer.
      settings: keyword arguments of the method; may be tracers.
    """
    num_tasks, key = len(problem.tasks), jax.random.key(seed)
    asking = {**ASKING, **OF_CHANNELS, **OF_TOWERS}
    if name in asking:
        parts = Parts(
            *(num_tasks, problem.owner, problem.shared, optimizer, key),
            strength_fn=problem.strength_fn,
        )
        made = asking[name](parts, **settings)
        return optax.with_extra_args_support(made)
    if name == SINGLE_TASK:
        # "weights": the head of a task that is not trained stays as it was.
        rule = mtl.constant(num_tasks, weights=trained)
        rule = among_tasks(rule, problem.shared, rest="weights")
        return optax.chain(rule, optimizer)
    aggregator = keyed(TABLE[name], key)(num_tasks, **settings)
    rule = among_tasks(aggregator, problem.shared)
    return optax.chain(rule, optimizer)
