"""What is kept of one parameter's gradients by sample: operands of the last sums."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.per_sample import flat
from mtl_optax.core.per_sample.states import Row, Total, mixed
from mtl_optax.core.per_sample.sums import Sum, along
from mtl_optax.core.per_sample.terms import (
    Term,
    cost_by_rows,
    cost_direct,
    gramian_of,
    terms_of,
)
from mtl_optax.core.per_sample.track import Tracker
from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.task_grads.leaf_products import leaf_gramian
from mtl_optax.core.task_grads.leaf_values import Values

# A multiplication by way of the gradients takes as long as two of the others, for they
# are written and read once more (measured on a CPU, for widths of 256 and 1024).
_WRITTEN = 2
# Gradients that were made for the Gramian are kept for the weighted sum up to this many
# times the memory of the operands, which are multiplied once more otherwise.
_KEPT = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """How the gradient comes from sums over the batch."""

    jaxpr: Any
    gradient: Any  # variable
    sums: tuple[Sum, ...]
    tail: tuple[Any, ...]  # equations from the sums to the gradient
    extras: tuple[Any, ...]  # other variables that these read
    terms: tuple[Term, ...] | None  # None: more than outer products
    batch: int

    @property
    def by_rows(self) -> bool:
        """Whether the Gramian is cheaper without the gradients."""
        if self.terms is None:
            return False
        direct = cost_direct(self.terms, self.batch)
        return cost_by_rows(self.terms) < _WRITTEN * direct

    @property
    def wanted(self) -> list[Any]:
        """The variables that a part needs the values of."""
        operands = [x for total in self.sums for x in total.eqn.invars]
        return [*operands, *self.extras]

    def behind(self, totals: Sequence[Any], extras: Sequence[Any]) -> jax.Array:
        """The gradient, from the values of the sums."""
        inputs = [*(total.eqn.outvars[0] for total in self.sums), *self.extras]
        args = [*totals, *extras]
        return flat.evaluate(self.jaxpr, self.tail, inputs, [self.gradient], args)[0]


def recipe(tracker: Tracker, gradient: Any) -> Recipe:
    """That of a gradient which is a sum over the batch."""
    tail, reached, sums = [], {gradient}, []
    for eqn in reversed(tracker.jaxpr.eqns):
        mine = reached.intersection(eqn.outvars)
        if any(var in tracker.sums for var in mine):
            sums.append(tracker.sums[eqn.outvars[0]])
        elif any(isinstance(tracker.state(var), Total) for var in mine):
            if eqn.primitive.name in ("scan", "cond"):
                mixed(eqn, "holds a sum over the batch that was not taken out of it")
            tail.append(eqn)
            reached.update(flat.variables(eqn.invars))
    inside = {var for eqn in tail for var in eqn.outvars}
    inside.update(total.eqn.outvars[0] for total in sums)
    return Recipe(
        jaxpr=tracker.jaxpr,
        gradient=gradient,
        sums=tuple(sums),
        tail=tuple(tail[::-1]),
        extras=tuple(var for var in reached if var not in inside),
        terms=terms_of(tracker.made, tracker.sums, gradient),
        batch=tracker.batch,
    )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("operands", "extras"),
    meta_fields=("recipe",),
)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Gradients `[B, *param]` of which there are only the operands of their sums."""

    operands: tuple[tuple[Any, ...], ...]  # of each sum
    extras: tuple[Any, ...]
    recipe: Recipe

    @property
    def num_tasks(self) -> int:
        """B."""
        return self.recipe.batch

    def gramian(self) -> jax.Array:
        """Inner products of all pairs `[B, B]`."""
        if self.recipe.by_rows:
            terms = self.recipe.terms
            assert terms is not None
            return gramian_of(terms, self._in_order(terms), self.num_tasks)
        return leaf_gramian(self.stack())

    def stack(self) -> jax.Array:
        """The gradients themselves."""
        pairs = zip(self.recipe.sums, self.operands, strict=True)
        slices = [total.by_sample(x) for total, x in pairs]
        axes = [[None if r is None else 0 for r in s.rows] for s in self.recipe.sums]
        return jax.vmap(self._one, in_axes=(axes,))(slices)

    def mix(self, combinations: jax.Array, active: jax.Array | None) -> Values:
        """As values, for which all rows are made."""
        return Values(rows=self.stack()).mix(combinations, active)

    def kept(self) -> "Samples | Values":
        """These, or the gradients themselves where they take not much more memory."""
        if self.recipe.by_rows:
            return self
        size = math.prod(self.recipe.gradient.aval.shape) * self.num_tasks
        operands = sum(jnp.size(x) for x in jax.tree.leaves(self.operands))
        return Values(rows=self.stack()) if size <= _KEPT * operands else self

    def normal(self) -> tuple[jax.Array, jax.Array | None]:
        """By size from the factors, where nothing but them makes the gradient."""
        if self.recipe.terms is None:
            return Values(rows=self.stack()).normal()
        pairs = list(zip(self.recipe.sums, self.operands, strict=True))
        sizes = reduce(jnp.maximum, [total.largest(x) for total, x in pairs])
        sizes = power_of_two(sizes)
        scaled = tuple(tuple(total.over(x, sizes)) for total, x in pairs)
        return dataclasses.replace(self, operands=scaled).gramian(), sizes

    def largest(self) -> jax.Array:
        """Of the gradients themselves."""
        return Values(rows=self.stack()).largest()

    def normal_row(self, task: jax.Array, sizes: jax.Array) -> jax.Array:
        """Of the gradients themselves."""
        return Values(rows=self.stack()).normal_row(task, sizes)

    def row(self, sample: Any) -> jax.Array:
        """The gradient of one sample."""
        slices = [
            [
                x if row is None else lax.dynamic_index_in_dim(x, sample, 0, False)
                for row, x in zip(total.rows, total.by_sample(operands), strict=True)
            ]
            for total, operands in zip(self.recipe.sums, self.operands, strict=True)
        ]
        return self._one(slices)

    def pull(self, weights: jax.Array, active: jax.Array | None) -> jax.Array:
        """The weighted sum: the last products once more, of weighted cotangents."""
        totals = [
            total.whole(self.recipe.jaxpr, total.weighted(x, weights, active))
            for total, x in zip(self.recipe.sums, self.operands, strict=True)
        ]
        return self.recipe.behind(totals, self.extras)

    def pulled_again(
        self, update: jax.Array, weights: jax.Array, active: jax.Array | None
    ) -> jax.Array:
        """As it was: a product is in memory in any case."""
        del weights, active
        return update

    def _one(self, slices: Any) -> jax.Array:
        totals = [
            total.of_sample(self.recipe.jaxpr, x)
            for total, x in zip(self.recipe.sums, slices, strict=True)
        ]
        return self.recipe.behind(totals, self.extras)

    def _in_order(self, terms: Sequence[Term]) -> list[tuple[Any, ...]]:
        at = {
            id(total): x
            for total, x in zip(self.recipe.sums, self.operands, strict=True)
        }
        return [at[id(term.sum)] for term in terms]


def samples(recipe: Recipe, values: Sequence[Any]) -> Samples:
    """From the values of `recipe.wanted`."""
    operands, start = [], 0
    for total in recipe.sums:
        end = start + len(total.eqn.invars)
        operands.append(tuple(values[start:end]))
        start = end
    return Samples(
        operands=tuple(operands), extras=tuple(values[start:]), recipe=recipe
    )


def own_rows(whole: jax.Array, where: Row, batch: int) -> Values:
    """For a parameter of which each sample has a part of its own."""
    if batch == 1:  # all of it, also where it has no axis
        return Values(rows=whole[None])

    def only(one: jax.Array) -> jax.Array:
        return jnp.where(along(where, whole, one), whole, 0)

    return Values(rows=jax.vmap(only)(jnp.eye(batch, dtype=bool)))
