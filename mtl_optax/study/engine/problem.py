"""What is trained: data, starts, losses and metrics, as one value.

A problem may have a state beside its parameters (running statistics, centres of other
tasks) and draw random numbers (dropout, samples): its functions take both. One that
needs neither is made by `stateless`. It may have no data at all, and any precision.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray


class Metric(NamedTuple):
    """A number a task, which a problem reports under this name."""

    name: str
    unit: str  # "" for a number without one
    higher_is_better: bool = True

    def __str__(self) -> str:
        """As an axis or a column is labelled."""
        return f"{self.name} / {self.unit}" if self.unit else self.name

    @property
    def digits(self) -> int:
        """Behind the point, in tables: percents to a tenth."""
        return 1 if self.unit == "%" else 3

    @property
    def points(self) -> str:
        """The unit of differences."""
        return self.unit.replace("%", "points")


class Now(NamedTuple):
    """The moment of a training step."""

    progress: jax.Array  # share of all steps that are done, from 0 to below 1
    key: jax.Array  # of this step of this run


def batch_indices(
    seed: int, num_examples: int, steps: int, batch_size: int
) -> NDArray[np.int32]:
    """The batches of a seed `[steps, batch_size]`, drawn outside of any jit."""
    rng = np.random.default_rng(seed)
    return rng.integers(num_examples, size=(steps, batch_size), dtype=np.int32)


def epoch_indices(
    seed: int, num_examples: int, steps: int, batch_size: int
) -> NDArray[np.int32]:
    """The same, in epochs: every example once, in a new order each time."""
    rng = np.random.default_rng(seed)
    number = -(-steps * batch_size // num_examples)
    orders = np.tile(np.arange(num_examples, dtype=np.int32), (number, 1))
    order = rng.permuted(orders, axis=1).reshape(-1)
    return order[: steps * batch_size].reshape(steps, batch_size)


def nothing(params: Any, state: Any) -> tuple[()]:
    """Watches nothing."""
    del params, state
    return ()


class Problem(NamedTuple):
    """All that the engine and the report need to know of what is trained.

    A split is a tree of arrays with a leading axis of examples, or None. Batches are
    drawn from "train"; without it `losses` gets None. All others are evaluated.
    """

    name: str
    tasks: tuple[str, ...]
    splits: dict[str, Any]
    init: Callable[[int], tuple[Any, Any]]  # seed -> params, state (arrays, or ())
    # (params, state, batch, Now, **loss_settings) -> T losses, state
    losses: Callable[..., tuple[Any, Any]]
    metrics: tuple[Metric, ...]  # the first chooses among candidates
    # (params, state, split, key of the run) -> metric -> [T]
    evaluate: Callable[[Any, Any, Any, Any], dict[str, jax.Array]]
    owner: Callable[[Any], Any]  # params -> None on what all tasks share, or the task
    # What `losses` are: one for all tasks, or one each
    loss: tuple[Metric, ...] = (Metric("loss", "", higher_is_better=False),)
    # What "measure" of `evaluate` is for each task, where tasks have their own
    measures: tuple[Metric, ...] = ()
    chosen_on: str = "val"  # the split that chooses among candidates
    reported_on: str = "test"
    chosen_by: tuple[int, ...] | None = None  # tasks whose mean chooses; None: all
    # (seed, number of examples, steps, batch size) -> indices [steps, ...]
    draw: Callable[[int, int, int, int], NDArray[np.int32]] = batch_indices
    # batch -> [T] bool, the tasks that have an example in it; None: all tasks always
    active: Callable[[Any], jax.Array] | None = None
    # Settings of a method that `losses` takes, by these names, in its place
    loss_settings: tuple[str, ...] = ()
    # (params, state after the losses) -> connection strengths, for cso
    strength_fn: Callable[[Any, Any], Any] | None = None
    watch: Callable[[Any, Any], Any] = nothing  # -> a small array, kept as a path
    # (method, recipe) -> the two functions of `program.programs`, where training makes
    # its own data: asked in place of it, so that nobody asks for `losses`
    programs: Callable[[Any, Any], tuple[Any, Any]] | None = None
    precision: str = "float32"  # or "float64"
    about: str = ""  # for the report: what is trained
    facts: dict[str, Any] = {}  # noqa: RUF012  for config.json; read only
    credits: str = ""  # of the data

    def shared(self, params: Any) -> Any:
        """True on the leaves that all tasks share, False on those that a task owns."""
        owner = self.owner(params)
        return jax.tree.map(lambda x: x is None, owner, is_leaf=lambda x: x is None)


def stateless(
    *,
    init: Callable[[int], Any],
    losses: Callable[..., Any],
    evaluate: Callable[[Any, Any], dict[str, jax.Array]],
    **others: Any,
) -> Problem:
    """A problem of functions that take parameters and a batch, or a split, alone.

    Args:
      init: seed -> params.
      losses: `(params, batch, **loss_settings)` -> T losses.
      evaluate: `(params, split)` -> metric -> `[T]`.
      **others: the other fields of a problem.
    """

    def losses_and_state(
        params: Any, state: Any, batch: Any, now: Now, **settings: Any
    ) -> tuple[Any, Any]:
        del now
        return losses(params, batch, **settings), state

    return Problem(
        init=lambda seed: (init(seed), ()),
        losses=losses_and_state,
        evaluate=lambda params, state, split, key: evaluate(params, split),
        **others,
    )
