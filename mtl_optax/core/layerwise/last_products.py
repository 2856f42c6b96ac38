"""Where a parameter's gradient comes from: the last product of a backward pass.

Walks back from a gradient `[T, *param]` over what only rearranges it, to the product of
which it is the value. What is not recognised is a value, which is always right.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Var

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.layerwise.forms import Sizes
from mtl_optax.core.layerwise.views import Views, seen_as
from mtl_optax.core.trees.replicated import mode_of, of_one_row, spread_out

Eqn = Any  # an equation of a jaxpr; in its stubs variables have no shapes


@dataclass(frozen=True)
class FoundProduct:
    """`dot_general` of D, which has the task axis, and X: a gradient but for views."""

    d: Any  # variables
    x: Any
    axis: int  # of tasks in D
    contracted: tuple[tuple[int, ...], tuple[int, ...]]  # axes of D, of X
    batch: tuple[tuple[int, ...], tuple[int, ...]]
    d_first: bool  # whether D's free axes come before X's
    like: tuple[tuple[str, Any], ...]  # precision and dtype of the product
    views: Views = ()

    def row(self, d: jax.Array, x: jax.Array) -> jax.Array:
        """The gradient of one task, from its D without the task axis."""

        def without(axes: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(axis - (axis > self.axis) for axis in axes)

        (of_d, of_x), (batch_d, batch_x) = self.contracted, self.batch
        pair = [(d, without(of_d), without(batch_d)), (x, of_x, batch_x)]
        (left, *ours), (right, *theirs) = pair if self.d_first else pair[::-1]
        numbers = ((ours[0], theirs[0]), (ours[1], theirs[1]))
        row = lax.dot_general(left, right, numbers, **dict(self.like))
        return seen_as(row, self.views)

    def operands(self) -> tuple[Any, Any]:
        """D and X."""
        return self.d, self.x

    def free(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Axes of D, without that of tasks, and of X that the gradient keeps."""
        used = [
            {*self.contracted[0], *self.batch[0], self.axis},
            {*self.contracted[1], *self.batch[1]},
        ]
        of_d, of_x = (
            tuple(i for i in range(var.aval.ndim) if i not in axes)
            for var, axes in zip((self.d, self.x), used, strict=True)
        )
        return of_d, of_x

    def sizes(self) -> Sizes:
        """What its cost depends on."""

        def size(var: Any, axes: tuple[int, ...]) -> int:
            return math.prod(var.aval.shape[i] for i in axes)

        of_d, of_x = self.free()
        return Sizes(
            size(self.d, self.batch[0]),
            self.d.aval.shape[self.axis],
            size(self.d, self.contracted[0]),
            size(self.x, of_x),
            size(self.d, of_d),
        )


@dataclass(frozen=True)
class FoundSum:
    """A sum of products, or of tables: a weight that is used twice in the same way."""

    terms: tuple[Any, ...]


@dataclass(frozen=True)
class FoundTable:
    """Rows added into a table of zeros: the gradient of looked-up embeddings."""

    ids: Any  # [lookups..., 1]
    updates: Any  # [lookups..., row] with the task axis somewhere
    axis: int  # of tasks in the updates
    row_axes: tuple[int, ...]  # of the updates, those of one row of the table
    num_rows: int
    views: Views = ()

    def operands(self) -> tuple[Any, Any]:
        """Rows and their places."""
        return self.updates, self.ids


@dataclass(frozen=True)
class FoundValue:
    """Anything else, and why."""

    value: Any
    why: str


Found = FoundProduct | FoundSum | FoundTable | FoundValue


def find(made_by: dict[Var, Eqn], gradient: Any) -> Found:
    """What a gradient `[T, *param]` is made of."""
    found = _find(made_by, gradient, 0)
    return FoundValue(gradient, found) if isinstance(found, str) else found


def _find(made_by: dict[Var, Eqn], var: Any, axis: int) -> Found | str:
    """The same with the task axis anywhere; a string says why it is only a value."""
    eqn = made_by.get(var) if jaxprs.is_variable(var) else None
    if eqn is None:
        return "it is none of the backward pass's results"
    kind = jaxprs.name(eqn)
    views = jaxprs.TRANSPOSE, jaxprs.RESHAPE, jaxprs.CONVERT
    if kind in views or jaxprs.placed_by(eqn) is not None:
        return _through_view(made_by, eqn, axis)
    if kind == jaxprs.PRODUCT:
        return _product(eqn, axis)
    if kind == jaxprs.SCATTER_ADD:
        return _table(made_by, eqn, axis)
    if kind == jaxprs.SUM:
        return _sum([_find(made_by, x, axis) for x in eqn.invars])
    return f"it comes from {kind}"


def _through_view(made_by: Any, eqn: Eqn, axis: int) -> Found | str:
    seen = view(eqn, axis)
    if isinstance(seen, str):
        return seen
    step, before = seen
    found = _find(made_by, eqn.invars[0], before)
    if isinstance(found, FoundSum):
        terms = tuple(replace(term, views=(*term.views, step)) for term in found.terms)
        return FoundSum(terms)
    if isinstance(found, str | FoundValue):
        return found
    return replace(found, views=(*found.views, step))


def view(eqn: Eqn, axis: int) -> tuple[tuple[str, Any], int] | str:
    """What it does to one row, and where the task axis was before."""
    source, kind = eqn.invars[0].aval, jaxprs.name(eqn)
    if kind == jaxprs.TRANSPOSE:
        order = tuple(int(i) for i in eqn.params["permutation"])
        before = order[axis]
        rest = [i - (i > before) for i in order if i != before]
        return ("transpose", tuple(rest)), before
    if kind == jaxprs.CONVERT:
        dtype = eqn.params["new_dtype"]
        if not jnp.issubdtype(source.dtype, jnp.floating):
            return "it is cast from whole numbers"
        return ("cast", dtype), axis
    place = jaxprs.placed_by(eqn)
    if place is not None:
        row = of_one_row(place, source.ndim, axis)
        if row is None or mode_of(source) != mode_of(eqn.outvars[0].aval):
            return "its axes on the mesh change their type"
        return ("place", row), axis
    if spread_out(source):
        return "it is reshaped over an explicit mesh"
    if eqn.params["dimensions"] is not None:
        return "a reshape transposes it too"
    sizes = eqn.outvars[0].aval.shape
    for before, size in enumerate(source.shape):
        ahead = math.prod(source.shape[:before]) == math.prod(sizes[:axis])
        if ahead and size == sizes[axis]:
            return ("reshape", (*sizes[:axis], *sizes[axis + 1 :])), before
    return "a reshape merges the task axis"


def _product(eqn: Eqn, axis: int) -> FoundProduct | str:
    contracted, batch = eqn.params["dimension_numbers"]
    if axis < len(batch[0]):
        return "tasks are a batch axis of its product"
    free = [
        [i for i in range(x.aval.ndim) if i not in (*contracted[side], *batch[side])]
        for side, x in enumerate(eqn.invars)
    ]
    place = axis - len(batch[0])
    side = 0 if place < len(free[0]) else 1
    in_d = free[side][place - side * len(free[0])]
    about = ("precision", "preferred_element_type")
    out = of_one_row(eqn.params["out_sharding"], eqn.outvars[0].aval.ndim, axis)

    def of(pair: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(int, pair[side])), tuple(map(int, pair[1 - side]))

    return FoundProduct(
        d=eqn.invars[side],
        x=eqn.invars[1 - side],
        axis=in_d,
        contracted=of(contracted),
        batch=of(batch),
        d_first=side == 0,
        like=(*((key, eqn.params[key]) for key in about), ("out_sharding", out)),
    )


def _sum(terms: list[Found | str]) -> Found | str:
    flat: list[FoundProduct | FoundTable] = []
    for term in terms:
        if isinstance(term, FoundProduct | FoundTable):
            flat.append(term)
        elif isinstance(term, FoundSum):
            flat.extend(term.terms)
        else:
            return "its weight is used in more than one way"
    if len({_shape_of_use(term) for term in flat}) > 1:
        return "its weight is used in more than one way"
    if any(spread_out(var.aval) for term in flat for var in term.operands()):
        return "its rows are put together over an explicit mesh"
    return FoundSum(tuple(flat))


def _shape_of_use(term: FoundProduct | FoundTable) -> Any:
    if isinstance(term, FoundTable):
        aval = term.updates.aval
        row = tuple(aval.shape[i] for i in term.row_axes)
        return (row, aval.dtype, term.num_rows, term.views)
    axes = zip((term.d, term.x, term.d), (*term.free(), term.batch[0]), strict=True)
    kept = tuple(tuple(var.aval.shape[i] for i in some) for var, some in axes)
    return (kept, term.d_first, term.like, term.views)


def _table(made_by: dict[Var, Eqn], eqn: Eqn, axis: int) -> FoundTable | str:
    table, ids, updates = eqn.invars
    numbers, mode = eqn.params["dimension_numbers"], str(eqn.params["mode"])
    rows = tuple(numbers.inserted_window_dims)
    plain = (
        len(rows) == 1
        and tuple(numbers.scatter_dims_to_operand_dims) == rows
        and not numbers.operand_batching_dims
        and not numbers.scatter_indices_batching_dims
        and rows[0] != axis
    )
    if not plain:
        return "its rows are looked up by more than one index"
    if "CLIP" in mode.upper():
        return "indices out of range are clipped"
    if not _is_zero(made_by, table):
        return "it is added to numbers that may not be zero"
    windows = tuple(int(i) for i in numbers.update_window_dims)
    whole = [i for i in range(table.aval.ndim) if i != rows[0]]  # axes of the windows
    if any(
        updates.aval.shape[w] != table.aval.shape[i]
        for w, i in zip(windows, whole, strict=True)
    ):
        return "parts of rows are looked up"
    if any(spread_out(x.aval) for x in (table, updates)):
        return "its rows are sharded over an explicit mesh"
    in_updates = windows[whole.index(axis)]
    row_axes = tuple(w for w in windows if w != in_updates)
    # Of one row of the result: rows of the table first, then what a row holds.
    order = [rows[0], *(i for i in whole if i != axis)]
    order = [i - (i > axis) for i in order]
    back = tuple(order.index(i) for i in range(len(order)))
    return FoundTable(
        ids=ids,
        updates=updates,
        axis=in_updates,
        row_axes=row_axes,
        num_rows=table.aval.shape[rows[0]],
        views=(("transpose", back),),
    )


def _is_zero(made_by: dict[Var, Eqn], atom: Any) -> bool:
    if not jaxprs.is_variable(atom):
        return bool(np.all(np.asarray(atom.val) == 0))
    eqn = made_by.get(atom)
    passed = (jaxprs.BROADCAST, jaxprs.RESHAPE, jaxprs.TRANSPOSE, jaxprs.CONVERT)
    return eqn is not None and (
        jaxprs.name(eqn) in passed and _is_zero(made_by, eqn.invars[0])
    )
