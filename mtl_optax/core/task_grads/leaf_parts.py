"""From a backward pass to what is kept of each leaf, cut at the last products."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

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
from mtl_optax.core.layerwise.scans import products_behind
from mtl_optax.core.task_grads.leaf_factors import Product
from mtl_optax.core.task_grads.leaf_tables import Table
from mtl_optax.core.task_grads.leaf_values import Values


def last_products(
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
    terms = tables(found)
    lookups = sum(math.prod(table.ids.aval.shape) for table in terms)
    if terms and not rule.lookups_pay(lookups, terms[0].num_rows):
        return FoundValue(out, "its table has fewer rows than there are lookups")
    return found


def by_rows(found: Found, rule: Rule) -> bool:
    """Whether its Gramian is to be taken from factors."""
    sizes = [term.sizes() for term in _products(found)]
    if not sizes:
        return False
    rows = sum(size.rows for size in sizes)
    return rule.rows_pay(sizes[0]._replace(rows=rows))


def why_so(found: Found, rule: Rule) -> str:
    """Why it takes the form that it does."""
    if isinstance(found, FoundValue):
        return found.why
    if tables(found):
        return "fewer lookups than rows of the table"
    if rule.form != "auto":
        return f'form="{rule.form}"'
    return "cheaper by rows" if by_rows(found, rule) else "cheaper by its gradients"


def _products(found: Found) -> tuple[FoundProduct, ...]:
    terms = found.terms if isinstance(found, FoundSum) else (found,)
    return tuple(term for term in terms if isinstance(term, FoundProduct))


def tables(found: Found) -> tuple[FoundTable, ...]:
    """Those that it is a sum of."""
    terms = found.terms if isinstance(found, FoundSum) else (found,)
    return tuple(term for term in terms if isinstance(term, FoundTable))


def evaluated(
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
        elif tables(one):
            made.append(_table(tables(one), pairs))
        else:
            product = _product(_products(one), pairs, rule)
            made.append(product if by_rows(one, rule) else _rows_of(product))
    return made


def _rows_of(product: Product) -> Values:
    # One by one: XLA takes twice as long for a stack of products as for so many alone.
    return Values(rows=tuple(map(product.row, range(product.d.shape[0]))))


def _atoms(found: Found) -> list[Any]:
    if isinstance(found, FoundValue):
        return [found.value]
    products = [atom for term in _products(found) for atom in (term.d, term.x)]
    lookups = [atom for term in tables(found) for atom in (term.updates, term.ids)]
    return products + lookups


def _product(found: Sequence[FoundProduct], pairs: list[Any], rule: Rule) -> Product:
    """The rows of all terms, one after the other; those of one as they are."""
    each = [_factors(one, *pair) for one, pair in zip(found, pairs, strict=True)]
    first = found[0]
    batch, rows = len(first.batch[0]), len(first.contracted[0])
    if len(each) > 1:
        rows = 1
        ds, xs = zip(*map(_in_a_line, found, *zip(*each, strict=True)), strict=True)
        each = [(jnp.concatenate(ds, batch + 1), jnp.concatenate(xs, batch))]
    ((d, x),) = each
    return Product(
        d=d,
        x=x,
        batch=batch,
        rows=rows,
        d_first=first.d_first,
        like=first.like,
        views=first.views,
        axis_name=rule.axis_name,
    )


def _factors(
    found: FoundProduct, d: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """D `[T, *e, *R, *n]` and X `[*e, *R, *m]`."""
    of_d, of_x = found.free()
    in_d, in_x = found.contracted
    return (
        d.transpose(found.axis, *found.batch[0], *in_d, *of_d),
        x.transpose(*found.batch[1], *in_x, *of_x),
    )


def _in_a_line(
    found: FoundProduct, d: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same with one axis of rows."""
    batch, rows = len(found.batch[0]), len(found.contracted[0])

    def one(part: jax.Array, first: int) -> jax.Array:
        sizes = part.shape[first : first + rows]
        return part.reshape(
            *part.shape[:first], math.prod(sizes), *part.shape[first + rows :]
        )

    return one(d, batch + 1), one(x, batch)


def _table(found: Sequence[FoundTable], pairs: list[Any]) -> Table:
    """The lookups of all terms, one after the other."""
    updates, ids = [], []
    for one, (update, places) in zip(found, pairs, strict=True):
        kept = (one.axis, *one.row_axes)
        lookups = [i for i in range(update.ndim) if i not in kept]
        update = update.transpose(one.axis, *lookups, *one.row_axes)
        row = update.shape[1 + len(lookups) :]
        updates.append(update.reshape(update.shape[0], places.size, *row))
        # Shorter ones may not hold the number of rows.
        whole = jnp.promote_types(places.dtype, jnp.int32)
        ids.append(places.reshape(-1).astype(whole))
    return Table(
        updates=jnp.concatenate(updates, 1),
        ids=jnp.concatenate(ids),
        num_rows=found[0].num_rows,
        views=found[0].views,
    )
