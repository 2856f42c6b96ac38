"""One weighted sum that stands for T gradients, where a method asks for no more."""

import dataclasses
from typing import Any, NamedTuple, NoReturn

import jax
import optax

from mtl_optax.core.task_grads.not_a_tree import NoArithmetic, not_a_tree
from mtl_optax.core.trees.leaves import only


class NeedsRows(Exception):
    """A method looks at single gradients."""


class Pull(NamedTuple):
    """What a method asked for once."""

    kept: tuple[bool, ...]  # of all leaves
    weights: jax.Array  # [T]; [B, T] with blocks
    blocks: tuple[int, ...] | None


def _no_rows(*_: Any, **__: Any) -> NoReturn:
    """There are no single gradients."""
    raise NeedsRows


@not_a_tree
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Weighed(NoArithmetic):
    """Gradients of which `pull` gives `total`, whatever the weights, and notes these.

    All that looks at single gradients raises `NeedsRows`.
    """

    total: optax.Updates  # [*param]
    num_tasks: int
    pulls: list[Pull] = dataclasses.field(default_factory=list)
    kept: tuple[bool, ...]
    names: tuple[Any, ...] | None = None
    losses: jax.Array | None = None
    active: jax.Array | None = None

    measured = False
    computed = gramian = measure = mix = row = one = some = stack = folded = _no_rows
    along = _no_rows

    @classmethod
    def of(cls, total: optax.Updates, num_tasks: int) -> "Weighed":
        """On all leaves."""
        kept = (True,) * len(jax.tree.leaves(total))
        return cls(total=total, num_tasks=num_tasks, kept=kept)

    def like(self) -> optax.Params:
        """The sum is shaped like one gradient."""
        return only(self.total, self.kept)

    def select(self, kept: tuple[bool, ...]) -> "Weighed":
        """On the kept leaves only, one bool for each leaf of `like()`."""
        rest = iter(kept)
        among = tuple(keep and next(rest) for keep in self.kept)
        return dataclasses.replace(self, kept=among)

    def pull(
        self, weights: jax.Array, blocks: tuple[int, ...] | None = None
    ) -> optax.Updates:
        """The sum."""
        self.pulls.append(Pull(self.kept, weights, blocks))
        return self.like()

    def at_parameters(self) -> "Weighed":
        """These."""
        return self

    def as_updates(self) -> "Weighed":
        """These: every method takes them."""
        return self

    def once_each(self) -> bool:
        """Whether every leaf was asked for exactly once."""
        times = [0] * len(self.kept)
        for pull in self.pulls:
            times = [n + keep for n, keep in zip(times, pull.kept, strict=True)]
        return set(times) <= {1}
