"""From a method's name to the transformation that trains with it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

import mtl_optax as mtl
from mtl_optax.nn import owner, shared
from mtl_optax.study.engine.methods import METHODS, OPTIMIZERS, SCHEDULES
from mtl_optax.study.engine.transformations import (
    Ingredients,
    OnTwoBatches,
    among_tasks,
)
from mtl_optax.training.settings import chosen


class Sharing:
    """What a method asks of a network: its tasks, and which leaves are whose."""

    def __init__(self, tasks: tuple[str, ...]):
        self.tasks = tasks
        self.owner = owner(tasks)
        self.shared = shared


def constant(of: Ingredients, **weights: Any) -> optax.GradientTransformation:
    """The weighted sum: `--hyper segmentation=1,depth=2`."""
    rule = mtl.constant(of.num_tasks, weights=weights)
    return optax.chain(among_tasks(rule, of.problem, rest="weights"), of.optimizer)


# Methods of the studies, and the sum by the user's own weights. (`single_task` is what
# --single-tasks does.)
EVERY: Mapping[str, Callable[..., Any]] = {
    **{
        name: x
        for name, x in METHODS.items()
        if name not in ("single_task", "weighted")
    },
    "constant": constant,
}


def transformation(
    name: str,
    tasks: tuple[str, ...],
    *,
    optimizer: str,
    learning_rate: float,
    schedule: str,
    steps: int,
    seed: int,
    hyper: Mapping[str, Any],
) -> optax.GradientTransformationExtraArgs:
    """The method on what tasks share, own gradients for the rest, the optimiser.

    Raises:
      ValueError: for a method, optimiser or schedule that is not there, with the
        nearest name, or a hyper-parameter that the method does not take.
    """
    rate = SCHEDULES[chosen("schedule", schedule, SCHEDULES)](learning_rate, steps)
    inner = OPTIMIZERS[chosen("optimiser", optimizer, OPTIMIZERS)].make(rate)
    key = jax.random.key(seed)
    sharing: Any = Sharing(tasks)
    of = Ingredients(sharing, inner, key, np.ones(len(tasks)), rate)
    try:
        made = EVERY[chosen("method", name, EVERY)](of, **hyper)
    except TypeError as error:
        if not hyper:
            raise
        raise ValueError(
            f"{name} does not take {dict(hyper)}: {error}{_taken(name)}"
        ) from error
    return optax.with_extra_args_support(made)


def _taken(name: str) -> str:
    """What a method of this name takes, if its signature says so."""
    if not hasattr(mtl, name):
        return ""
    own = list(inspect.signature(getattr(mtl, name)).parameters)[1:]
    names = [x for x in own if x not in ("key", "granularity")]
    return f". It takes {', '.join(names) or 'none'}"


def on_two_batches(name: str) -> bool:
    """Whether the method learns from a batch of validation data as well."""
    return isinstance(EVERY[chosen("method", name, EVERY)], OnTwoBatches)
