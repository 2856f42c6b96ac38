"""A method that only decides T numbers: a pair of pure functions of T-sized arrays."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mtl_optax.core.arguments import checks

_IS_A_RULE = (
    "This is a weighting, the rule of a method without its number of tasks: make a "
    "method of it with mtl_optax.from_weighting(weighting, num_tasks), or leave "
    ".weighting away, mtl_optax.mgda(num_tasks)."
)


class Weighting(NamedTuple):
    """A rule that turns losses and Gramian into task weights.

    Attributes:
      init: `init(num_tasks) -> state`, any pytree of arrays; how it tells which of them
        belong to tasks, see :func:`mtl_optax.resize_tasks`. It raises for arguments of
        the rule that do not fit so many tasks; `from_weighting` asks it at once.
      update: `update(gramian, state, *, losses, active, **extra) -> (weights, state)`.
        `gramian` is `[T, T]`, zero in rows and columns of inactive tasks (None unless
        `uses_gramian`); `losses` is `[T]`, 1 at inactive tasks, or None; `active` is
        always an array `[T]` bool. In `extra`: `names`, those of the tasks, or None;
        `look(V)`, the S combinations of the gradients by the rows of V `[S, T]`, whose
        `gramian()` `[S, S]` has the digits that the rounding of `V K V'` wiped out
        (None where no gradients are there to read again: with a given Gramian, one at
        features, one a block); `unit`, over whose square the Gramian is, which is 1
        unless squares would leave the range of numbers: only what is not the same for
        all multiples of the Gramian needs it; and what the caller of `tx.update`
        passed. Weights of
        inactive tasks are set to 0 afterwards; their statistics in `state` are the
        weighting's own to keep.
      uses_gramian: whether `update` reads the Gramian; if not, none is formed and lazy
        gradients cost a single backward pass.
      due: `due(state) -> (bool, state)`, asked first if given: where it says no, the
        last weights are applied again, and neither Gramian nor `update` is computed.
      asymmetric: whether the extra argument `gramian=` may be a cross Gramian, inner
        products `J1 J2'` of gradients on two independent batches, which is not
        symmetric, and whose diagonal may be negative.
      leaves: the leaves that the Gramian is taken over, as in `from_weighting`.
      names: of the tasks, sorted, where arguments of the rule were given by name.
      takes: which of the extra arguments of this library's methods (`order`, ...) the
        rule reads, so that the others are errors; None, as for a rule of your own,
        lets all pass.
    """

    init: Callable[[int], Any]
    update: Callable[..., tuple[jax.Array, Any]]
    uses_gramian: bool = True
    due: Callable[[Any], tuple[jax.Array, Any]] | None = None
    asymmetric: bool = False
    leaves: Any = None
    names: tuple[Any, ...] | None = None
    takes: frozenset[str] | None = None


def no_state(**per_task: Any) -> Callable[[int], tuple[()]]:
    """`init` without state that checks values for each task: None, or `[T]`."""

    def init(num_tasks: int) -> tuple[()]:
        checks.optional_vectors(num_tasks, **per_task)
        return ()

    return init


def check_weighting(caller: str, weighting: Any) -> None:
    """Raises unless it is a weighting, and says how to come by one."""
    if not isinstance(weighting, Weighting):
        raise ValueError(
            f"{caller} takes a weighting, such as mtl_optax.mgda.weighting(), the rule "
            "of a method without its number of tasks, not the method itself; got "
            f"{type(weighting).__name__} {getattr(weighting, '__name__', '')}".rstrip()
            + "."
        )


def check_transformation(caller: str, tx: Any) -> None:
    """Raises unless it is a transformation, and says how to come by one."""
    if isinstance(tx, Weighting):
        raise ValueError(f"{caller} takes a transformation. {_IS_A_RULE}")
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        name = getattr(tx, "__name__", "")
        raise ValueError(
            f"{caller} takes a transformation, such as mtl_optax.mgda(num_tasks) or "
            "optax.chain(mtl_optax.mgda(num_tasks), optax.adam(1e-3)); got "
            f"{type(tx).__name__} {name}".rstrip()
            + ". A method is made by calling it with the number of tasks."
        )


def for_tasks_only(weighting: Weighting) -> Weighting:
    """The weighting whose `init` raises where it is taken for a transformation."""

    def init(num_tasks: Any) -> Any:
        if not isinstance(num_tasks, numbers.Integral):
            raise ValueError(
                "The init of a weighting was called with parameters, as that of a "
                f"transformation is. {_IS_A_RULE}"
            )
        return weighting.init(int(num_tasks))

    return weighting._replace(init=init)
