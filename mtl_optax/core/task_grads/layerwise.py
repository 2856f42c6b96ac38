"""From linearised losses, or a pull-back, to task gradients layer by layer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.layerwise.forms import Rule
from mtl_optax.core.layerwise.last_products import (
    Found,
    FoundProduct,
    FoundSum,
    FoundTable,
    FoundValue,
    find,
)
from mtl_optax.core.layerwise.regions import Pieces, Tasks, pull_back
from mtl_optax.core.layerwise.scans import products_behind
from mtl_optax.core.task_grads.data_axis import mean_over
from mtl_optax.core.task_grads.leaf_factors import Product
from mtl_optax.core.task_grads.leaf_tables import Table
from mtl_optax.core.task_grads.leaf_values import Part, Values


def parts_of_losses(
    losses_of: Callable[[Any], Sequence[jax.Array]],
    ones: Sequence[jax.Array],
    params: Any,
    form: str,
    axis_name: Any,
) -> tuple[tuple[Part, ...], tuple[Tasks, ...]]:
    """For each leaf of the parameters its part, and the tasks that reach it.

    Args:
      losses_of: from a tangent of the parameters to those of T losses, linear.
      ones: T cotangents.
      params: the parameters.
      form: "auto", "rows" or "direct".
      axis_name: the mapped axis over which gradients are means, or None.
    """
    linear = jaxprs.trace(losses_of, params)
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    rule = Rule(form, axis_name, devices)

    def together(
        function: Callable[..., Any],
        types: Sequence[Any],
        tasks: Tasks,
        cotangents: Sequence[jax.Array],
        leaves: Sequence[bool],
    ) -> Sequence[Pieces]:
        transposed = jax.linear_transpose(function, *types)
        closed, found = _traced(jax.vmap(transposed), cotangents, leaves, rule)
        if form == "auto" and not any(_by_rows(one, rule) for one in found):
            # As cheap, and in less memory at a time.
            one_by_one = [
                transposed([cotangent[i] for cotangent in cotangents])
                for i in range(len(tasks))
            ]
            return [
                [((task,), row) for task, row in zip(tasks, rows, strict=True)]
                for rows in zip(*one_by_one, strict=True)
            ]
        made = _evaluated(closed, found, cotangents, rule)
        return [[(tasks, value)] for value in made]

    each = zip(pull_back(linear, ones, together), jax.tree.leaves(params), strict=True)
    merged = [_merged(pieces, leaf, axis_name) for pieces, leaf in each]
    return tuple(part for part, _ in merged), tuple(tasks for _, tasks in merged)


def parts_of_pullback(
    pullback: Callable[[Any], Any], cotangents: Any, form: str
) -> tuple[Part, ...]:
    """For each leaf of what a pull-back gives its part, T rows for T cotangents."""
    rule = Rule(form)
    closed, found = _traced(jax.vmap(pullback), cotangents, None, rule)
    made = _evaluated(closed, found, cotangents, rule)
    return tuple(
        value if isinstance(value, Product | Table) else Values(rows=value)
        for value in made
    )


def _traced(
    backward: Callable[..., Any],
    cotangents: Any,
    leaves: Sequence[bool] | None,
    rule: Rule,
) -> tuple[Any, list[Found]]:
    """The jaxpr of a backward pass, and what it gives those inputs that are leaves."""
    closed = jaxprs.trace_backward(backward, cotangents, scan=products_behind(rule))
    made_by, outs = jaxprs.producers(closed.jaxpr), closed.jaxpr.outvars
    found = [_worth(find(made_by, out), out, rule) for out in outs]
    if leaves is not None:
        for i, leaf in enumerate(leaves):
            if not leaf:
                found[i] = FoundValue(outs[i], "it is no parameter")
    return closed, found


def _worth(found: Found, out: Any, rule: Rule) -> Found:
    tables = _tables(found)
    lookups = sum(math.prod(table.ids.aval.shape) for table in tables)
    if tables and not rule.lookups_pay(lookups, tables[0].num_rows):
        return FoundValue(out, "its table has fewer rows than there are lookups")
    return found


def _by_rows(found: Found, rule: Rule) -> bool:
    sizes = [term.sizes() for term in _products(found)]
    if not sizes:
        return False
    rows = sum(size.rows for size in sizes)
    return rule.rows_pay(sizes[0]._replace(rows=rows))


def _products(found: Found) -> tuple[FoundProduct, ...]:
    terms = found.terms if isinstance(found, FoundSum) else (found,)
    return tuple(term for term in terms if isinstance(term, FoundProduct))


def _tables(found: Found) -> tuple[FoundTable, ...]:
    terms = found.terms if isinstance(found, FoundSum) else (found,)
    return tuple(term for term in terms if isinstance(term, FoundTable))


def _evaluated(
    closed: Any, found: Sequence[Found], cotangents: Any, rule: Rule
) -> list[Any]:
    """Products, tables and plain arrays: all from one evaluation of what they need."""
    wanted = [atom for one in found for atom in _atoms(one)]
    values = iter(jaxprs.evaluate(closed, jax.tree.leaves(cotangents), wanted))
    made = []
    for one in found:
        arrays = [next(values) for _ in _atoms(one)]
        pairs = list(zip(arrays[::2], arrays[1::2], strict=False))
        if isinstance(one, FoundValue):
            made.append(arrays[0])
        elif _tables(one):
            made.append(_table(_tables(one), pairs))
        else:
            made.append(_product(_products(one), pairs, _by_rows(one, rule), rule))
    return made


def _atoms(found: Found) -> list[Any]:
    if isinstance(found, FoundValue):
        return [found.value]
    products = [atom for term in _products(found) for atom in (term.d, term.x)]
    tables = [atom for term in _tables(found) for atom in (term.updates, term.ids)]
    return products + tables


def _product(
    found: Sequence[FoundProduct], pairs: list[Any], by_rows: bool, rule: Rule
) -> Product:
    """The rows of all terms, one after the other."""
    each = [_factors(one, *pair) for one, pair in zip(found, pairs, strict=True)]
    first = found[0]
    batch = len(first.batch[0])
    d, x = (
        jnp.concatenate(parts, axis)
        for parts, axis in zip(zip(*each, strict=True), (batch + 1, batch), strict=True)
    )
    return Product(
        d=d,
        x=x,
        batch=batch,
        d_first=first.d_first,
        like=first.like,
        views=first.views,
        by_rows=by_rows,
        axis_name=rule.axis_name,
    )


def _factors(
    found: FoundProduct, d: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """D `[T, *e, R, *n]` and X `[*e, R, *m]`."""

    def ordered(
        part: jax.Array, lead: tuple[int, ...], rows: tuple[int, ...], free: Any
    ) -> jax.Array:
        part = part.transpose(*lead, *rows, *free)
        behind = part.shape[len(lead) + len(rows) :]
        return part.reshape(*part.shape[: len(lead)], -1, *behind)

    of_d, of_x = found.free()
    in_d, in_x = found.contracted
    return (
        ordered(d, (found.axis, *found.batch[0]), in_d, of_d),
        ordered(x, found.batch[1], in_x, of_x),
    )


def _table(found: Sequence[FoundTable], pairs: list[Any]) -> Table:
    """The lookups of all terms, one after the other."""
    updates, ids = [], []
    for one, (update, places) in zip(found, pairs, strict=True):
        kept = (one.axis, *one.row_axes)
        lookups = [i for i in range(update.ndim) if i not in kept]
        update = update.transpose(one.axis, *lookups, *one.row_axes)
        row = update.shape[1 + len(lookups) :]
        updates.append(update.reshape(update.shape[0], -1, *row))
        ids.append(places.reshape(-1))
    return Table(
        updates=jnp.concatenate(updates, 1),
        ids=jnp.concatenate(ids),
        num_rows=found[0].num_rows,
        views=found[0].views,
    )


def _merged(pieces: Pieces, leaf: jax.Array, axis_name: Any) -> tuple[Part, Tasks]:
    """One part from all that was pulled back to a leaf, and its tasks."""
    if len(pieces) == 1 and len(pieces[0][0]) > 1:
        tasks, value = pieces[0]
        if isinstance(value, Product | Table):
            return value, tasks
        return Values(rows=mean_over(value, axis_name)), tasks
    rows: dict[int, jax.Array] = {}
    for tasks, value in pieces:
        for i, task in enumerate(tasks):
            row = value if len(tasks) == 1 else _row(value, i)
            rows[task] = rows[task] + row if task in rows else row
    if not rows:  # a parameter that no loss depends on
        rows = {0: jnp.zeros_like(leaf)}
    among = tuple(sorted(rows))
    each = tuple(mean_over(rows[task], axis_name) for task in among)
    return Values(rows=each), among


def _row(value: Any, i: int) -> jax.Array:
    return value.row(i) if isinstance(value, Product | Table) else value[i]
