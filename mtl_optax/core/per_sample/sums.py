"""The operations that sum over the batch, and what one sample gives to each.

Such an operation, applied to the slice of one sample in place of the batch, is that
sample's term of the sum, whatever the other operands hold: a product that contracts
over the batch, a convolution of inputs with cotangents, a plain sum, rows that are
added into a table.
"""

import dataclasses
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.per_sample import flat
from mtl_optax.core.per_sample.states import Row, shape_of
from mtl_optax.core.per_sample.taps import by_taps, has_taps
from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_values import largest_of


@dataclasses.dataclass(frozen=True)
class Sum:
    """One of them, and where the batch lies in each of its operands."""

    eqn: Any
    rows: tuple[Row | None, ...]  # None: all of the operand belongs to every sample
    moving: int  # the operand that depends on the cotangent
    batch: int

    def whole(self, jaxpr: Any, operands: Any) -> jax.Array:
        """The sum, or that of some samples."""
        eqn = self.eqn
        return flat.evaluate(jaxpr, [eqn], eqn.invars, eqn.outvars, operands)[0]

    def over_steps(
        self, jaxpr: Any, operands: Sequence[Any], steps: Sequence[bool]
    ) -> jax.Array:
        """The sum over some steps too, which lie in front of the operands marked."""
        name, params = self.eqn.primitive.name, self.eqn.params
        if name == "dot_general" and all(steps):
            (left, right), batch = (
                [tuple(axis + 1 for axis in axes) for axes in pair]
                for pair in params["dimension_numbers"]
            )
            numbers = (((0, *left), (0, *right)), (batch[0], batch[1]))
            about = ("precision", "preferred_element_type")
            like = {key: params[key] for key in about}
            return lax.dot_general(operands[0], operands[1], numbers, **like)
        if name == "reduce_sum":
            axes = tuple(axis + 1 for axis in params["axes"])
            return jnp.sum(operands[0], axis=(0, *axes))
        each_step = [0 if step else None for step in steps]
        each = jax.vmap(lambda *x: self.whole(jaxpr, x), in_axes=each_step)(*operands)
        return jnp.sum(each, axis=0)

    def by_sample(self, operands: Any) -> list[Any]:
        """The operands with the batch in front, where they have it."""
        pairs = zip(self.rows, operands, strict=True)
        return [x if row is None else self._in_front(row, x) for row, x in pairs]

    def of_sample(self, jaxpr: Any, slices: Any) -> jax.Array:
        """The term of one sample, from its slices of what `by_sample` gives."""
        pairs = zip(self.rows, slices, strict=True)
        alone = [x if row is None else _one(row, x) for row, x in pairs]
        if has_taps(self.eqn):
            return by_taps(self.eqn, *alone)
        return self.whole(jaxpr, alone)

    def weighted(self, operands: Any, weights: Any, active: Any) -> list[Any]:
        """The operands of the weighted sum, without samples that are not active."""
        new = list(operands)
        for i, row in self.numbers():
            if i == self.moving:
                wide = new[i] * along(row, new[i], weights)
                new[i] = wide.astype(operands[i].dtype)
            if active is not None:
                new[i] = jnp.where(along(row, new[i], active), new[i], 0)
        return new

    def largest(self, operands: Any) -> jax.Array:
        """A bound of the numbers that a sample's term adds up, near to them `[B]`."""
        sizes = [size for _, _, size in self._sizes(operands)]
        bound = reduce(operator.mul, sizes)
        return jnp.minimum(bound, jnp.finfo(bound.dtype).max)

    def over(self, operands: Any, sizes: jax.Array) -> list[Any]:
        """The operands of each sample's term over its size, each in its range."""
        new, found = list(operands), self._sizes(operands)
        for i, row, size in found:
            unit = power_of_two(size)
            if i == self.moving:
                others = [power_of_two(other) for j, _, other in found if j != i]
                unit = reduce(operator.truediv, others, sizes)
            new[i] = (operands[i] / along(row, operands[i], unit)).astype(
                operands[i].dtype
            )
        return new

    def _sizes(self, operands: Any) -> list[tuple[int, Row, jax.Array]]:
        """Of each operand with numbers of samples the largest of each sample."""
        return [
            (i, row, largest_of(self._in_front(row, operands[i])))
            for i, row in self.numbers()
        ]

    def numbers(self) -> list[tuple[int, Row]]:
        """Operands that hold numbers of single samples, and where."""
        return [
            (i, row)
            for i, row in enumerate(self.rows)
            if row is not None
            and jnp.issubdtype(self.eqn.invars[i].aval.dtype, jnp.floating)
        ]

    def _in_front(self, row: Row, x: jax.Array) -> jax.Array:
        return jnp.moveaxis(self.split(row, x), row.axis + 1, 0)

    def split(self, row: Row, x: jax.Array) -> jax.Array:
        """The axis as three, `[..., outer, B, inner, ...]`."""
        sizes = (-1, self.batch, row.inner)
        return x.reshape(*x.shape[: row.axis], *sizes, *x.shape[row.axis + 1 :])


def along(row: Row, x: jax.Array, values: jax.Array) -> jax.Array:
    """Values `[B]` shaped to go along the axis of the batch."""
    outer = x.shape[row.axis] // (values.shape[0] * row.inner)
    spread = jnp.tile(jnp.repeat(values, row.inner), outer)
    return lax.expand_dims(spread, [d for d in range(x.ndim) if d != row.axis])


def _one(row: Row, x: jax.Array) -> jax.Array:
    """`[..., outer, inner, ...]` as the slice of one sample."""
    return x.reshape(*x.shape[: row.axis], -1, *x.shape[row.axis + 2 :])


def sum_of(eqn: Any, rows: list[Row | None], batch: int) -> Sum:
    """The sum that an equation makes whose operands lie in these rows."""
    moving = next(i for i, row in enumerate(rows) if row is not None)
    row = rows[moving]
    assert row is not None
    where = list(rows)
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        contracted = params["dimension_numbers"][0]
        other = contracted[1 - moving][list(contracted[moving]).index(row.axis)]
        where[1 - moving] = Row(other, row.inner)
    elif name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        other = (numbers.lhs_spec, numbers.rhs_spec)[1 - moving][1]
        where[1 - moving] = Row(other, row.inner)
    elif name == "scatter-add":
        window = params["dimension_numbers"].update_window_dims
        rest = [d for d in range(len(shape_of(eqn.invars[2]))) if d not in window]
        where[1] = Row(rest.index(row.axis), row.inner)
    return Sum(eqn, tuple(where), moving, batch)
