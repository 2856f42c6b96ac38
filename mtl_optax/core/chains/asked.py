"""A chain, and all that is asked about it."""

import functools
from typing import Any

import jax

from mtl_optax.core.chains import supplies
from mtl_optax.core.chains.explained import explained, parts_that_ran
from mtl_optax.core.chains.places import watched_by
from mtl_optax.core.chains.probing import Seen, probe, run_through
from mtl_optax.core.chains.tracing import Tracing
from mtl_optax.core.task_grads.as_task_grads import is_lazy


class Asked:
    """A chain with what it is called with, as far as that is known."""

    def __init__(
        self, tx: Any, params: Any, num_tasks: int, extra_args: dict[str, Any]
    ) -> None:
        self.tx, self.params, self.num_tasks = tx, params, num_tasks
        self.extra_args, self.wanted = extra_args, dict[str, Any]()
        self.names = set[str]()
        self.methods = 0  # that came by
        self.params_dropped = False  # by what calls one of them
        self.within: str | None = None  # what lets it multiply only behind its method

    def of(self, tx: Any, within: str | None, params: Any) -> "Asked":
        """The same about a chain inside."""
        inside = Asked(tx, params, self.num_tasks, self.extra_args)
        inside.wanted, inside.names = self.wanted, self.names
        inside.within = within or self.within
        return inside

    def trace(self, state: Any, gradients: Any) -> tuple[Any, Any]:
        """Shapes of updates and state after an update.

        Raises:
          ValueError: what the error of a part means, and how to cure it.
        """
        # Lazy gradients are no tree, and stay outside.
        held, given = (gradients, None) if is_lazy(gradients) else (None, gradients)

        def update(given: Any, state: Any, params: Any) -> Any:
            gradients = given if held is None else held
            extra_args = self._extra_args(params, gradients)
            return self.tx.update(gradients, state, params, **extra_args)

        while True:
            tracing = Tracing(self.num_tasks, gradients, self.names)
            try:
                # Adam before a method broadcasts; we want to see it do so.
                with watched_by(tracing), jax.numpy_rank_promotion("allow"):
                    found = jax.eval_shape(update, given, state, self.params)
            except Exception as error:
                behind = tracing.methods > 0
                if self._makes_up(supplies.wanted(error), behind):
                    continue
                text = explained(error, tracing)
                if text is None:
                    raise
                raise ValueError(f"check_chain: {text}") from error
            self.methods = tracing.methods
            self.params_dropped = tracing.params_dropped
            return found

    def probe(self, *, look_behind: bool = False) -> Seen:
        """Numbers sent through it."""
        return probe(
            *(self.tx, self.params, self.num_tasks, self.names, self._extra_args),
            look_behind=look_behind or self.within is not None,
        )

    def names_of_parts(self) -> list[str]:
        """What stands before the first method that something stands before."""
        about = self.tx, self.params, self.num_tasks, self.names, self._extra_args
        run = functools.partial(run_through, *about)
        try:
            return parts_that_ran(run)
        except Exception:  # a name is nice to have
            return []

    def _makes_up(self, wanted: set[str], behind: bool) -> bool:
        """Whether some of the missing arguments can be made up."""
        new = wanted & supplies.OF_OPTAX - self.wanted.keys() - self.extra_args.keys()
        self.wanted |= dict.fromkeys(new, behind)
        return bool(new)

    def _extra_args(self, params: Any, gradients: Any) -> dict[str, Any]:
        made_up = supplies.for_optax(self.wanted, params, gradients)
        return {**made_up, **self.extra_args}
