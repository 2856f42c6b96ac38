"""The methods that a study can name: those that need no settings of their own."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

import mtl_optax as mtl

SINGLE_TASK = "single_task"

_DETERMINISTIC: dict[str, Callable[[int], optax.GradientTransformation]] = {
    "unitary": mtl.unitary,
    "mean": mtl.mean,
    "uw": mtl.uw,
    "mgda": mtl.mgda,
    "cagrad": mtl.cagrad,
    "imtl_g": mtl.imtl_g,
    "nash_mtl": mtl.nash_mtl,
    "upgrad": mtl.upgrad,
    "aligned_mtl": mtl.aligned_mtl,
}
_RANDOM: dict[str, Callable[..., optax.GradientTransformation]] = {
    "pcgrad": mtl.pcgrad,
    "graddrop": mtl.graddrop,
}
KNOWN = (*_DETERMINISTIC, *_RANDOM, SINGLE_TASK)


class Optimizer(NamedTuple):
    """What follows the aggregator."""

    make: Callable[..., optax.GradientTransformation]  # of a learning rate or schedule
    learning_rate: float  # where the user gives none


OPTIMIZERS = {
    "adam": Optimizer(optax.adam, 3e-3),
    "sgd": Optimizer(partial(optax.sgd, momentum=0.9), 3e-2),
}


def aggregator(
    name: str,
    num_tasks: int,
    shared: Callable[[Any], Any],
    *,
    seed: ArrayLike,
    own_task: ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """The method on shared parameters, and each head's own gradient for the head.

    Args:
      name: one of KNOWN.
      num_tasks: T.
      shared: params -> mask, True on what all tasks share.
      seed: for the methods that draw; may be a tracer.
      own_task: `[T]`, one-hot; the only task of a single-task run; may be a tracer.
    """
    if name == SINGLE_TASK:
        # "weights": the head of a task that is not trained stays as it was.
        rule = mtl.constant(num_tasks, weights=own_task)
        return mtl.on_shared(rule, shared, rest="weights")
    if name in _RANDOM:
        rule = _RANDOM[name](num_tasks, key=jax.random.key(seed))
    else:
        rule = _DETERMINISTIC[name](num_tasks)
    return mtl.on_shared(rule, shared)
