"""What every form of per-task gradients can do, and nothing about how."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import optax

# (rows so far, new rows, their task or None for all) -> rows, number by number.
Fold = Callable[[jax.Array, jax.Array, Any], jax.Array]


class TaskGrads(Protocol):
    """The gradients of T tasks, with their names, losses and mask inside.

    An aggregator begins with `as_task_grads(...)` and sees nothing else. Rows of tasks
    that are not active count as zero, whatever they hold.
    """

    names: tuple[Any, ...] | None  # of the tasks, sorted, where they are known
    losses: jax.Array | None  # [T], 1 at inactive tasks
    active: jax.Array | None  # [T] bool; None, which costs no masking: all are

    @property
    def num_tasks(self) -> int:
        """T."""

    @property
    def measured(self) -> bool:
        """Whether `gramian` is that of the numbers that `pull` sums."""

    def like(self) -> optax.Params:
        """A tree of shapes and dtypes like one row; nothing is computed."""

    def select(self, kept: tuple[bool, ...]) -> "TaskGrads":
        """On the kept leaves only, one bool a leaf; the others become MaskedNode."""

    def at_parameters(self) -> "TaskGrads":
        """Those of the parameters, where `gramian` would look elsewhere."""

    def computed(self) -> "TaskGrads":
        """The form that is cheapest to look at and then to pull."""

    def gramian(self, blocks: tuple[int, ...] | None = None) -> jax.Array:
        """Inner products of all pairs, `[T, T]`; `[B, T, T]`, leaf l in `blocks[l]`."""

    def measure(
        self, blocks: tuple[int, ...] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The Gramian over `unit**2`, and the unit: 1 but where squares overflow."""

    def mix(self, combinations: jax.Array) -> "TaskGrads":
        """The S weighted sums of the rows of `combinations` `[S, T]`."""

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """The weighted sum `[*param]`; weights `[T]`, or `[B, T]` with `blocks`."""

    def pulled_again(self, update: optax.Updates, weights: Any) -> optax.Updates:
        """`update`, which is `pull(weights)`, for a reader in a branch."""

    def along(self, direction: optax.Updates) -> jax.Array:
        """The inner product of each gradient with a tree like one, `[T]`."""

    def row(self, task: int) -> optax.Updates:
        """The gradient of one task, `[*param]`."""

    def one(self, task: jax.Array) -> optax.Updates:
        """The same of a task whose index may be traced; no other is computed."""

    def some(self, chosen: jax.Array) -> optax.Updates:
        """The stack with zeros for tasks not chosen `[T]`, which are not computed."""

    def stack(self) -> optax.Updates:
        """All gradients, `[T, *param]`."""

    def folded(self, total: Any, fold: Fold) -> Any:
        """A stack `[T, *param]` with these folded in; in place where it may be."""

    def as_updates(self) -> Any:
        """What an optax transformation may be given: plain arrays, or lazy ones."""
