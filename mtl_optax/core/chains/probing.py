"""What stands before a method, and behind one in a wrapper, tried on a few numbers.

All that may stand there multiplies each entry by a number: what looks at other entries
looks at other tasks, or at lengths; what adds something adds it to every task. So each
entry is multiplied by a power of two of its own, or by zero, and should come out
multiplied by it, bit for bit, whatever the parameters are. Methods are not run: numbers
that are made up go in their place.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import jaxpr_as_fun

from mtl_optax.core.chains import supplies
from mtl_optax.core.chains.places import ROWS, WRAPPER, watched_by
from mtl_optax.core.chains.tracing import plain

_LARGE = 100_000  # entries of the gradients, from which on all axes are cut
_CUT = 3
_TRIES = 3
_Leaves = dict[str, jax.Array]  # by path
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
    stacked: _Leaves  # gradients, into the chain and out of what gives rows
    single: _Leaves  # updates, out of methods
    arrived: list[tuple[str, jax.Array]] = dataclasses.field(default_factory=list)
    inner: dict[int, _Inner] = dataclasses.field(default_factory=dict)
    depth: int = 0  # of wrappers of ours

    def visit(
        self, kind: str, update: Any, updates: Any, state: Any, params: Any, extra: Any
    ) -> tuple[Any, Any]:
        """Keeps what came, gives what is made up; a wrapper shows what it holds."""
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

    def _made_up(self, leaves: _Leaves, updates: Any) -> Any:
        def at(path: Any, _: Any) -> jax.Array:
            found = leaves.get(jax.tree_util.keystr(path))
            if found is None:
                raise CannotTell("The chain changes the tree of its gradients.")
            return found

        return jax.tree_util.tree_map_with_path(at, updates)


@dataclasses.dataclass(eq=False)
class Naming(Probing):
    """The same on shapes only; calls back at each method."""

    stacked: _Leaves = dataclasses.field(default_factory=dict)
    single: _Leaves = dataclasses.field(default_factory=dict)
    at_method: Callable[[], None] = lambda: None

    def visit(self, kind: str, *rest: Any) -> tuple[Any, Any]:
        """Calls back first."""
        if kind != ROWS:
            self.at_method()
        return super().visit(kind, *rest)

    def run(self, tx: Any, params: Any, extra_args_at: Any) -> None:
        """Traces the chain."""
        like = _small(params, self.num_tasks)

        def update(stacked: Any, params: Any) -> Any:
            self.stacked, self.single = by_path(stacked), by_path(params)
            state = tx.init(params)
            return tx.update(stacked, state, params, **extra_args_at(params, stacked))[
                0
            ]

        stacked = _numbers(like, (self.num_tasks,), 0)
        with watched_by(self), jax.numpy_rank_promotion("allow"):
            jax.eval_shape(update, stacked, like)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a probe found."""

    before: bool  # whether what reaches methods is the gradients, times numbers
    behind: bool  # whether what comes out is the methods' updates, times numbers >= 0
    updates: _Leaves  # what came out
    gradients: _Leaves  # what went in
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
    inner: dict[int, _Inner] = {}

    def run(stacked: Any, single: Any, params: Any) -> Any:
        watcher = Probing(num_tasks, names, by_path(stacked), by_path(single))
        with watched_by(watcher):
            state = tx.init(params)
            out, _ = tx.update(stacked, state, params, **extra_args_at(params, stacked))
        inner.update(watcher.inner)
        arrived = [leaf for _, leaf in watcher.arrived]
        return arrived, by_path(out) if look_behind else {}

    try:
        like = _small(params, num_tasks)
        given = _tries(like, num_tasks)
        # Without jit inside, everything happens in one trace, and is in reach.
        with jax.disable_jit(), jax.numpy_rank_promotion("allow"):
            closed, shapes = jax.make_jaxpr(run, return_shape=True)(*given[0])
        # What nothing asked for, such as an optimiser behind the method, is not run.
        compiled = jax.jit(jaxpr_as_fun(closed)) if closed.out_avals else _nothing
        flat = [compiled(*jax.tree.leaves(numbers)) for numbers in given]
    except Exception as error:
        raise CannotTell(str(error)) from error
    found = [jax.tree.unflatten(jax.tree.structure(shapes), x) for x in flat]
    out, single = [out for _, out in found], by_path(given[0][1])
    return Seen(
        before=all(map(_scales, *(arrived for arrived, _ in found))),
        behind=all(
            _scales(*(leaves[path] for leaves in out)) and _upright(leaf, single[path])
            for path, leaf in out[0].items()
            if leaf.shape == single[path].shape
        ),
        updates=out[0],
        gradients=by_path(given[0][0]),
        inner=list(inner.values()),
    )


def by_path(tree: Any) -> _Leaves:
    """The leaves by where they are."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in pairs}


def _nothing(*_: Any) -> list[Any]:
    """What comes out of a program without outputs."""
    return []


def _small(params: Any, num_tasks: int) -> Any:
    """The parameters' shapes, with all axes cut if they are large."""
    sizes = [math.prod(jnp.shape(p)) for p in jax.tree.leaves(params)]
    cut = _CUT if num_tasks * sum(sizes) > _LARGE else None

    def shape(p: Any) -> jax.ShapeDtypeStruct:
        axes = jnp.shape(p) if cut is None else (min(n, cut) for n in jnp.shape(p))
        return jax.ShapeDtypeStruct(tuple(axes), jnp.result_type(p))

    return jax.tree.map(shape, params)


def _tries(like: Any, num_tasks: int) -> list[tuple[Any, Any, Any]]:
    """Gradients, updates and parameters; entries scaled; with other parameters."""
    stacked, single = _numbers(like, (num_tasks,), 0), _numbers(like, (), 1)
    params, others = _numbers(like, (), 2), _numbers(like, (), 3)
    scaled = [
        (
            *(
                jax.tree.map(lambda x, k=k: x * _factors(x, k), t)
                for t in (stacked, single)
            ),
            params,
        )
        for k in range(_TRIES)
    ]
    return [(stacked, single, params), *scaled, (stacked, single, others)]


def _numbers(like: Any, lead: tuple[int, ...], seed: int) -> Any:
    """Numbers of either sign, none of them near zero."""
    rng = np.random.default_rng(seed)

    def numbers(x: Any) -> jax.Array:
        shape = (*lead, *x.shape)
        sizes = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)
        return jnp.asarray(sizes, x.dtype)

    return jax.tree.map(numbers, like)


def _factors(x: jax.Array, k: int) -> jax.Array:
    """A power of two or zero for each entry, another one in each try."""
    large = 2.0 ** (10 if x.dtype == jnp.float16 else 20)
    which = np.random.default_rng(x.size).integers(0, 4, x.shape)
    if x.ndim:  # so that no two rows are alike
        which.reshape(x.shape[0], -1)[:, :1] = np.arange(x.shape[0])[:, None]
    return jnp.asarray(np.array([large, 1 / large, 0, 1])[(which + k) % 4], x.dtype)


def _scales(plain: jax.Array, *tried: jax.Array) -> bool:
    """Whether each entry was multiplied by a number, which parameters do not change."""
    wanted = [plain * _factors(plain, k) for k in range(_TRIES)]
    least = float(jnp.finfo(plain.dtype).tiny)

    def same(found: jax.Array, hoped: jax.Array) -> bool:
        left, right = np.asarray(found, np.float64), np.asarray(hoped, np.float64)
        return np.allclose(left, right, rtol=1e-3, atol=least)

    return all(map(same, tried, [*wanted, plain]))


def _upright(leaf: jax.Array, before: jax.Array) -> bool:
    """Whether no entry changed its sign."""
    return bool(jnp.all(leaf * before >= 0))
