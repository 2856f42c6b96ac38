r"""Gramians of samples from the factors of their gradients, without the gradients.

A weight's gradient of sample b is a sum over its positions l, and over the places where
the weight is used, of outer products :math:`u_{bl} v_{bl}^\top`. So

.. math:: K_{bs} = \sum_{l,k} \langle u_{bl}, u_{sk} \rangle
   \langle v_{bl}, v_{sk} \rangle

over e such products side by side. Of a table of embeddings u is one-hot, the number of
the row that was looked up.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.per_sample.states import shape_of
from mtl_optax.core.per_sample.sums import Sum

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Side:
    """One factor of a term: an operand, its free axes, and where they end up."""

    operand: int
    free: Axes
    places: Axes  # of the free axes in the gradient
    ids: bool = False  # the operand holds numbers of rows, not numbers
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Term:
    """A sum over the batch of outer products of two sides."""

    sum: Sum
    sides: tuple[Side, Side]
    many: tuple[Axes, Axes]  # axes of both operands that are side by side
    many_places: Axes
    positions: tuple[Axes, Axes]  # contracted, but for the batch

    @property
    def e(self) -> int:
        """Products side by side."""
        shape = shape_of(self.sum.eqn.invars[self.sides[0].operand])
        return math.prod(shape[i] for i in self.many[0])

    @property
    def rows(self) -> int:
        """Batch times positions."""
        side = 0 if not self.sides[0].ids else 1
        shape = shape_of(self.sum.eqn.invars[self.sides[side].operand])
        row = self.sum.rows[self.sides[side].operand]
        assert row is not None
        axes = (*self.positions[side], row.axis)
        return math.prod(shape[i] for i in axes)

    def values(self, operands: Sequence[jax.Array]) -> list[jax.Array]:
        """Both sides `[e, B L, size]`; numbers of rows `[B L]`."""
        return [self._side(i, operands) for i in range(2)]

    def _side(self, which: int, operands: Sequence[jax.Array]) -> jax.Array:
        side = self.sides[which]
        x, row = operands[side.operand], self.sum.rows[side.operand]
        assert row is not None
        x = self.sum.split(row, x)

        def moved(axes: Axes) -> list[int]:
            return [axis + 2 * (axis > row.axis) for axis in axes]

        outer, batch, inner = range(row.axis, row.axis + 3)
        lead = [*moved(self.many[which]), batch, outer, inner]
        order = [*lead, *moved(self.positions[which]), *moved(side.free)]
        x = x.transpose(order)
        if side.ids:
            return x.reshape(self.rows)
        return x.reshape(self.e, self.rows, -1).astype(jnp.result_type(float))


def gramian_of(
    terms: Sequence[Term], operands: Sequence[Sequence[jax.Array]], batch: int
) -> jax.Array:
    """K `[B, B]` of a sum of terms, from the operands of each one's sum."""
    sides = [term.values(x) for term, x in zip(terms, operands, strict=True)]
    total = jnp.zeros((batch, batch))
    for i, first in enumerate(terms):
        for j, second in enumerate(terms[: i + 1]):
            cross = _pair(first, sides[i], second, sides[j], batch)
            total += cross if i == j else cross + cross.T
    return (total + total.T) / 2


def _pair(
    first: Term, ours: list[jax.Array], second: Term, theirs: list[jax.Array], size: int
) -> jax.Array:
    if first.sides[0].places != second.sides[0].places:  # the other way around
        theirs = theirs[::-1]
        flipped = second.sides[::-1]
    else:
        flipped = second.sides
    products = [
        _among(a, x, b, y)
        for a, x, b, y in zip(first.sides, ours, flipped, theirs, strict=True)
    ]
    both = products[0] * products[1]
    return both.reshape(first.e, size, -1, size, second.rows // size).sum((0, 2, 4))


def _among(a: Side, x: jax.Array, b: Side, y: jax.Array) -> jax.Array:
    """Inner products of all rows of two sides, `[e, R, R']`; e may be 1."""
    if a.ids and b.ids:
        known = (x >= 0) & (x < a.size)
        return ((x[:, None] == y[None, :]) & known[:, None])[None].astype(
            jnp.result_type(float)
        )
    if a.ids or b.ids:
        ids, rows = (x, y) if a.ids else (y, x)
        picked = jnp.take(rows[0], ids, axis=1, mode="fill", fill_value=0)
        picked = jnp.where((ids >= 0)[None, :], picked, 0)
        return picked.T[None] if a.ids else picked[None]
    return lax.dot_general(
        x,
        y,
        (((2,), (2,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.result_type(float),
    )


def cost_by_rows(terms: Sequence[Term]) -> int:
    """Multiplications of `gramian_of`."""
    cost = 0
    for i, first in enumerate(terms):
        for second in terms[: i + 1]:
            sizes = [
                1 if a.ids else a.size
                for a in (
                    first.sides
                    if not any(s.ids for s in second.sides)
                    else second.sides
                )
            ]
            cost += first.e * first.rows * second.rows * (sum(sizes) + 1)
    return cost


def cost_direct(terms: Sequence[Term], batch: int) -> int:
    """Multiplications by way of the gradients `[B, *param]`."""
    size = math.prod(side.size for side in terms[0].sides)
    cost = batch**2 * terms[0].e * size
    for term in terms:
        once = any(side.ids for side in term.sides)
        cost += term.e * (batch if once else term.rows) * size
    return cost


def terms_of(
    made: dict[Any, Any], sums: dict[Any, Sum], gradient: Any
) -> tuple[Term, ...] | None:
    """The terms of a gradient; None where it is something else as well."""
    found = _walk(made, sums, gradient, ())
    if not found:
        return None
    terms, rests = [], set()
    for total, steps in found:
        order: list[int] = list(range(len(shape_of(total.eqn.outvars[0]))))
        rest = list(steps)
        while rest and rest[0][0] == "transpose":
            order = [order[i] for i in rest.pop(0)[1]]
        term = _term(total, [order.index(i) for i in range(len(order))])
        if term is None:
            return None
        terms.append(term)
        rests.add(tuple(rest))
    if len(terms) > 1 and (len(rests) > 1 or not _agree(terms)):
        return None
    return tuple(terms)


def _agree(terms: Sequence[Term]) -> bool:
    """Whether all terms are outer products of the same axes of the gradient."""

    def places(term: Term) -> Any:
        return term.many_places, {side.places for side in term.sides}

    dtypes = {term.sum.eqn.outvars[0].aval.dtype for term in terms}
    return all(places(t) == places(terms[0]) for t in terms) and len(dtypes) == 1


def _walk(made: Any, sums: Any, var: Any, steps: Any) -> list[tuple[Sum, Any]] | None:
    if var in sums:
        return [(sums[var], steps)]
    eqn = made.get(var)
    name = eqn.primitive.name if eqn else ""
    if name in ("transpose", "reshape", "convert_element_type", "copy"):
        about = {
            "transpose": lambda: tuple(map(int, eqn.params["permutation"])),
            "reshape": lambda: tuple(eqn.params["new_sizes"]),
            "convert_element_type": lambda: str(eqn.params["new_dtype"]),
        }.get(name, lambda: None)()
        return _walk(made, sums, eqn.invars[0], ((name, about), *steps))
    if name == "add_any":
        one, other = (_walk(made, sums, x, steps) for x in eqn.invars)
        return None if one is None or other is None else one + other
    return None


def _term(total: Sum, place: list[int]) -> Term | None:
    """The term of one sum; `place` says where the axes of its result end up."""
    name = total.eqn.primitive.name
    if name == "dot_general":
        return _product(total, place)
    return _table(total, place) if name == "scatter-add" else None


def _product(total: Sum, place: list[int]) -> Term:
    contracted, many = total.eqn.params["dimension_numbers"]
    sides, positions, first = [], [], len(many[0])
    for i, row in enumerate(total.rows):
        assert row is not None
        shape = shape_of(total.eqn.invars[i])
        gone = (*contracted[i], *many[i])
        free = [axis for axis in range(len(shape)) if axis not in gone]
        pairs = sorted((place[first + k], axis) for k, axis in enumerate(free))
        first += len(free)
        ends, axes = zip(*pairs, strict=True) if pairs else ((), ())
        size = math.prod(shape[axis] for axis in axes)
        sides.append(Side(i, tuple(axes), tuple(ends), size=size))
        positions.append(tuple(axis for axis in contracted[i] if axis != row.axis))
    order = sorted(range(len(many[0])), key=lambda i: place[i])
    both = tuple(many[0][i] for i in order), tuple(many[1][i] for i in order)
    beside = tuple(place[i] for i in order)
    return Term(
        sum=total,
        sides=(sides[0], sides[1]),
        many=both,
        many_places=beside,
        positions=(positions[0], positions[1]),
    )


def _table(total: Sum, place: list[int]) -> Term | None:
    eqn, numbers = total.eqn, total.eqn.params["dimension_numbers"]
    rows, ids, updates = numbers.inserted_window_dims, *map(shape_of, eqn.invars[1:])
    plain = (
        len(rows) == 1
        and tuple(numbers.scatter_dims_to_operand_dims) == tuple(rows)
        and not numbers.operand_batching_dims
        and "CLIP" not in str(eqn.params["mode"])
    )
    window = tuple(numbers.update_window_dims)
    table = shape_of(eqn.outvars[0])
    kept = [d for d in range(len(table)) if d not in rows]
    if not plain or any(
        table[d] != updates[w] for d, w in zip(kept, window, strict=True)
    ):
        return None
    pairs = sorted((place[d], w) for d, w in zip(kept, window, strict=True))
    ends, axes = zip(*pairs, strict=True) if pairs else ((), ())
    row_of, row_in = total.rows[2], total.rows[1]
    assert row_of is not None
    assert row_in is not None
    looked = tuple(d for d in range(len(updates)) if d not in (*window, row_of.axis))
    among = tuple(d for d in range(len(ids)) if d != row_in.axis)
    size = math.prod(updates[d] for d in axes)
    sides = (
        Side(1, (), (place[rows[0]],), ids=True, size=table[rows[0]]),
        Side(2, tuple(axes), tuple(ends), size=size),
    )
    return Term(total, sides, ((), ()), (), (among, looked))
