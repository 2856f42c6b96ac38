"""What stands before a method, and behind one in a wrapper, tried on a few numbers.

All that may stand there multiplies each entry by a number: what looks at other entries
looks at other tasks, or at lengths; what adds something adds it to every task. So each
entry is multiplied by a power of two of its own, or by zero, and should come out
multiplied by it, bit for bit, whatever the parameters are. Methods are not run: numbers
that are made up go in their place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.extend.core import jaxpr_as_fun

from mtl_optax.core.chains import supplies
from mtl_optax.core.chains.numbers import (
    Leaves,
    Try,
    by_path,
    numbers_like,
    scales,
    shapes_to_try,
    tries,
    upright,
)
from mtl_optax.core.chains.places import ROWS, WRAPPER, watched_by
from mtl_optax.core.chains.tracing import plain

_STEPS = 2  # a schedule that warms up multiplies by zero in the first
# A transformation, the wrapper that it is within if it may only multiply behind its
# method, and what its updates look like.
_Inner = tuple[Any, str | None, Any]


class CannotTell(Exception):
    """The chain does not run on numbers that are made up."""


@dataclasses.dataclass(eq=False)
class Probing:
    """Puts numbers in the place of methods, and keeps what would reach them."""

    num_tasks: int
    names: set[str]
    stacked: Leaves  # gradients, into the chain and out of what gives rows
    single: Leaves  # updates, out of methods
    arrived: list[tuple[str, jax.Array]] = dataclasses.field(default_factory=list)
    inner: dict[int, _Inner] = dataclasses.field(default_factory=dict)
    depth: int = 0  # of wrappers of ours
    at_method: Callable[[], None] = lambda: None

    def visit(
        self, kind: str, update: Any, updates: Any, state: Any, params: Any, extra: Any
    ) -> tuple[Any, Any]:
        """Keeps what came, gives what is made up; a wrapper shows what it holds."""
        if kind != ROWS:
            self.at_method()
        updates = plain(updates)
        if not self.depth:  # what a wrapper of ours does to gradients is meant
            changed = by_path(updates).items()
            self.arrived += [x for x in changed if x[1] is not self.stacked.get(x[0])]
        if kind == WRAPPER:
            about = self.num_tasks, self.names
            known = supplies.for_part(kind, update, extra, *about)
            self.depth += 1
            _, state = update(updates, state, params, **known)
            self.depth -= 1
        return self._made_up(self.stacked if kind == ROWS else self.single, updates), (
            state
        )

    def look_inside(
        self, inner: Any, within: str | None, updates: Any, state: Any
    ) -> tuple[Any, Any]:
        """Keeps it for a look of its own."""
        like = self._made_up(self.single, plain(updates))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
        self.inner.setdefault(id(inner), (inner, within, shapes))
        return like, state

    def _made_up(self, leaves: Leaves, updates: Any) -> Any:
        def at(path: Any, _: Any) -> jax.Array:
            found = leaves.get(jax.tree_util.keystr(path))
            if found is None:
                raise CannotTell("The chain changes the tree of its gradients.")
            return found

        return jax.tree_util.tree_map_with_path(at, updates)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a probe found."""

    before: bool  # whether what reaches methods is the gradients, times numbers
    behind: bool  # whether what comes out is the methods' updates, times numbers >= 0
    updates: Leaves  # what came out
    gradients: Leaves  # what went in
    inner: list[_Inner]  # what wrappers hold, to be probed next

    def passes(self, path: str) -> bool:
        """Whether this leaf came out as it went in."""
        return np.array_equal(self.updates[path], self.gradients[path])


def probe(
    tx: optax.GradientTransformationExtraArgs,
    params: Any,
    num_tasks: int,
    names: set[str],
    extra_args_at: Callable[[Any, Any], dict[str, Any]],
    *,
    look_behind: bool,
) -> Seen:
    """Tries the chain; `extra_args_at(params, gradients)` are those of its update.

    Raises:
      CannotTell: if it does not run on other numbers and smaller shapes.
    """

    def run(stacked: Any, single: Any, params: Any) -> Any:
        watcher = Probing(num_tasks, names, by_path(stacked), by_path(single))
        state, extra_args = tx.init(params), extra_args_at(params, stacked)
        outs = []
        with watched_by(watcher):
            for _ in range(_STEPS):
                out, state = tx.update(stacked, state, params, **extra_args)
                outs.append(by_path(out))
        inner.update(watcher.inner)
        arrived = [leaf for _, leaf in watcher.arrived]
        return arrived, outs if look_behind else []

    errors: list[Exception] = []
    for like in shapes_to_try(params, num_tasks):
        inner: dict[int, _Inner] = {}
        try:
            given = tries(like, num_tasks)
            return _seen(given, _run_all(run, given), list(inner.values()))
        except Exception as error:
            errors.append(error)
    raise CannotTell(str(errors[0])) from errors[0]


def _run_all(run: Callable[..., Any], given: list[Try]) -> list[Any]:
    # Without jit inside, everything happens in one trace, and is in reach.
    with jax.disable_jit(), jax.numpy_rank_promotion("allow"):
        closed, shapes = jax.make_jaxpr(run, return_shape=True)(*given[0])
    # What nothing asked for, such as an optimiser behind the method, is not run.
    compiled = jax.jit(jaxpr_as_fun(closed)) if closed.out_avals else _nothing
    flat = [compiled(*jax.tree.leaves(numbers)) for numbers in given]
    return [jax.tree.unflatten(jax.tree.structure(shapes), x) for x in flat]


def _seen(given: list[Try], found: list[Any], inner: list[_Inner]) -> Seen:
    single = by_path(given[0][1])
    steps = list(zip(*(outs for _, outs in found), strict=True))
    return Seen(
        before=all(map(scales, *(arrived for arrived, _ in found))),
        behind=all(
            scales(*(leaves[path] for leaves in out)) and upright(leaf, single[path])
            for out in steps
            for path, leaf in out[0].items()
            if leaf.shape == single[path].shape
        ),
        updates=steps[-1][0] if steps else {},
        gradients=by_path(given[0][0]),
        inner=inner,
    )


def run_through(
    tx: optax.GradientTransformationExtraArgs,
    params: Any,
    num_tasks: int,
    names: set[str],
    extra_args_at: Callable[[Any, Any], dict[str, Any]],
    at_method: Callable[[], None],
) -> None:
    """Traces the chain without its methods; calls back at each."""
    like = shapes_to_try(params, num_tasks)[0]

    def run(stacked: Any, single: Any) -> Any:
        watcher = Probing(num_tasks, names, by_path(stacked), by_path(single))
        watcher.at_method = at_method
        with watched_by(watcher):
            extra_args = extra_args_at(single, stacked)
            return tx.update(stacked, tx.init(single), single, **extra_args)[0]

    with jax.numpy_rank_promotion("allow"):
        jax.eval_shape(run, numbers_like(like, (num_tasks,), 0), like)


def _nothing(*_: Any) -> list[Any]:
    """What comes out of a program without outputs."""
    return []
