"""What the runner trains: data, starts, losses and metrics, as one value.

A new problem is another value of this tuple. It may have no data at all (the toy),
other metrics, or another precision.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Metric(NamedTuple):
    """A number a task, which a problem reports under this name."""

    name: str
    unit: str  # "" for a number without one
    higher_is_better: bool = True


class Clock(NamedTuple):
    """What losses may depend on besides parameters and batch; see Problem.clocked."""

    progress: jax.Array  # share of all steps that are done, from 0 to below 1
    key: jax.Array  # of this step of this run


def nothing(params: Any) -> tuple[()]:
    """Watches nothing."""
    del params
    return ()


class Problem(NamedTuple):
    """All that the runner and the report need to know of what is trained.

    A split is a tree of arrays with a leading axis of examples, or None. Batches are
    drawn from "train"; without it `losses` gets None. All others are evaluated.
    """

    name: str
    tasks: tuple[str, ...]
    splits: dict[str, Any]
    init: Callable[[int], Any]  # seed -> params
    losses: Callable[..., tuple[jax.Array, ...]]  # (params, batch) -> T losses
    metrics: tuple[Metric, ...]  # the first chooses the learning rate
    evaluate: Callable[[Any, Any], dict[str, jax.Array]]  # (params, split) -> [T] each
    owner: Callable[[Any], Any]  # params -> None on what all tasks share, or the task
    # What "measure" of `evaluate` is for each task, where tasks have their own
    measures: tuple[Metric, ...] = ()
    chosen_on: str = "val"  # the split that chooses the learning rate
    reported_on: str = "test"
    chosen_by: tuple[int, ...] | None = None  # tasks whose mean chooses; None: all
    epochs: bool = (
        False  # whether batches go through all examples before one comes again
    )
    clocked: bool = False  # whether losses takes a Clock after the batch
    # batch -> [T] bool, the tasks that have an example in it; None: all tasks always
    active: Callable[[Any], jax.Array] | None = None
    # Settings of a method that `losses` takes, by these names, in its place
    loss_settings: tuple[str, ...] = ()
    # (params, batch) -> connection strengths, for cso
    strength_fn: Callable[[Any, Any], Any] | None = None
    watch: Callable[[Any], Any] = nothing  # params -> a small array, kept as a path
    precision: str = "float32"  # or "float64"
    about: str = ""  # for the report: what is trained
    facts: dict[str, Any] = {}  # noqa: RUF012  for config.json; read only
    credits: str = ""  # of the data

    def shared(self, params: Any) -> Any:
        """True on the leaves that all tasks share, False on those that a task owns."""
        owner = self.owner(params)
        return jax.tree.map(lambda x: x is None, owner, is_leaf=lambda x: x is None)
