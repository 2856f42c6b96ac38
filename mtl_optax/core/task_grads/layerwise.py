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
from mtl_optax.core.layerwise.regions import Pieces, Tasks, Together, pull_back
from mtl_optax.core.layerwise.scans import products_behind
from mtl_optax.core.task_grads.data_axis import mean_over
from mtl_optax.core.task_grads.leaf_factors import Product
from mtl_optax.core.task_grads.leaf_tables import Table
from mtl_optax.core.task_grads.leaf_values import OfLeaf, Values


def parts_of_losses(
    losses_of: Callable[[Any], Sequence[jax.Array]],
    ones: Sequence[jax.Array],
    params: Any,
    form: str,
    axis_name: Any,
) -> list[OfLeaf]:
    """For each leaf of the parameters its part, and the tasks that reach it.

    Args:
      losses_of: from a tangent of the parameters to those of T losses, linear.
      ones: T cotangents.
      params: the parameters.
      form: "auto", "rows" or "direct".
      axis_name: the mapped axis over which gradients are means, or None.
    """
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
        if form == "auto" and _convolves(function, types):
            why = "convolutions are slower for tasks together"
            return _one_by_one(transposed, tasks, cotangents, why)
        try:
            closed, found = _traced(jax.vmap(transposed), cotangents, leaves, rule)
        except Exception as error:  # a true one comes again, one by one
            return _one_by_one(transposed, tasks, cotangents, _alone(error))
        if form == "auto" and not any(_by_rows(x, rule) or _tables(x) for x in found):
            # As cheap, and in less memory at a time.
            why = "no weight that these tasks share has fewer rows than inputs"
            return _one_by_one(transposed, tasks, cotangents, why)
        made = _evaluated(closed, found, cotangents, rule)
        return [
            [(tasks, value, _why(one, rule))]
            for one, value in zip(found, made, strict=True)
        ]

    return _parts(losses_of, ones, params, together, axis_name)


def stacks_of_losses(
    losses_of: Callable[[Any], Sequence[jax.Array]],
    ones: Sequence[jax.Array],
    params: Any,
    chunk_size: int | None,
    axis_name: Any,
) -> list[OfLeaf]:
    """The same, each part a stack where several tasks reach the leaf.

    So many tasks are pulled back together; None is one after the other.
    """

    def together(
        function: Callable[..., Any],
        types: Sequence[Any],
        tasks: Tasks,
        cotangents: Sequence[jax.Array],
        leaves: Sequence[bool],
    ) -> Sequence[Pieces]:
        transposed = jax.linear_transpose(function, *types)
        if chunk_size is None and _convolves(function, types):
            # In a loop XLA's CPU takes a naive form of a kernel's gradient.
            return _one_by_one(transposed, tasks, cotangents, "")
        # A loop writes every row into the stack: rows beside it would be a second one.
        stacks = lax.map(transposed, list(cotangents), batch_size=chunk_size)
        return [[(tasks, stack, "")] for stack in stacks]

    return _parts(losses_of, ones, params, together, axis_name)


def _alone(error: Exception) -> str:
    """For a backward pass that JAX cannot map over tasks: no rule for it, mostly."""
    return f"its backward pass takes one task at a time ({type(error).__name__})"


def _convolves(function: Callable[..., Any], types: Sequence[Any]) -> bool:
    eqns = jax.make_jaxpr(function)(*types).jaxpr.eqns
    return jaxprs.CONVOLUTION in jaxprs.names_in(eqns)


def _one_by_one(
    transposed: Callable[[Any], Any],
    tasks: Tasks,
    cotangents: Sequence[jax.Array],
    why: str,
) -> Sequence[Pieces]:
    each = [
        transposed([cotangent[i] for cotangent in cotangents])
        for i in range(len(tasks))
    ]
    return [
        [((task,), row, why) for task, row in zip(tasks, rows, strict=True)]
        for rows in zip(*each, strict=True)
    ]


def _parts(
    losses_of: Callable[[Any], Sequence[jax.Array]],
    ones: Sequence[jax.Array],
    params: Any,
    together: Together,
    axis_name: Any,
) -> list[OfLeaf]:
    linear = jaxprs.trace(losses_of, params)
    each = zip(pull_back(linear, ones, together), jax.tree.leaves(params), strict=True)
    return [_merged(pieces, leaf, axis_name) for pieces, leaf in each]


def parts_of_pullback(
    pullback: Callable[[Any], Any],
    cotangents: Any,
    like: Sequence[Any],
    num_tasks: int,
    form: str,
) -> list[OfLeaf]:
    """For each leaf of what a pull-back gives its part, T rows for T cotangents."""
    rule, tasks = Rule(form), tuple(range(num_tasks))
    if num_tasks == 1:
        alone = pullback(jax.tree.map(lambda c: c[0], cotangents))
        rows = [[(tasks, row, "one task reaches it")] for row in jax.tree.leaves(alone)]
        return [_merged(*one, None) for one in zip(rows, like, strict=True)]
    try:
        closed, found = _traced(jax.vmap(pullback), cotangents, None, rule)
    except Exception as error:
        leaves, treedef = jax.tree.flatten(cotangents)

        def flat(leaves: Sequence[jax.Array]) -> Sequence[Any]:
            return jax.tree.leaves(pullback(jax.tree.unflatten(treedef, leaves)))

        each = _one_by_one(flat, tasks, leaves, _alone(error))
    else:
        made = _evaluated(closed, found, cotangents, rule)
        each = [
            [(tasks, value, _why(one, rule))]
            for one, value in zip(found, made, strict=True)
        ]
    return [
        _merged(pieces, leaf, None) for pieces, leaf in zip(each, like, strict=True)
    ]


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


def _why(found: Found, rule: Rule) -> str:
    if isinstance(found, FoundValue):
        return found.why
    if _tables(found):
        return "fewer lookups than rows of the table"
    if rule.form != "auto":
        return f'form="{rule.form}"'
    return "cheaper by rows" if _by_rows(found, rule) else "cheaper by its gradients"


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
            product = _product(_products(one), pairs, rule)
            made.append(product if _by_rows(one, rule) else _rows_of(product))
    return made


def _rows_of(product: Product) -> Values:
    # One by one: XLA takes twice as long for a stack of products as for so many alone.
    return Values(rows=tuple(map(product.row, range(product.d.shape[0]))))


def _atoms(found: Found) -> list[Any]:
    if isinstance(found, FoundValue):
        return [found.value]
    products = [atom for term in _products(found) for atom in (term.d, term.x)]
    tables = [atom for term in _tables(found) for atom in (term.updates, term.ids)]
    return products + tables


def _product(found: Sequence[FoundProduct], pairs: list[Any], rule: Rule) -> Product:
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
        axis_name=rule.axis_name,
    )


def _factors(
    found: FoundProduct, d: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """D `[T, *e, R, *n]` and X `[*e, R, *m]`."""

    def ordered(
        part: jax.Array, lead: tuple[int, ...], rows: tuple[int, ...], free: Any
    ) -> jax.Array:
        sizes = [[part.shape[i] for i in axes] for axes in (lead, rows, free)]
        part = part.transpose(*lead, *rows, *free)
        return part.reshape(*sizes[0], math.prod(sizes[1]), *sizes[2])

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


def _merged(pieces: Pieces, leaf: jax.Array, axis_name: Any) -> OfLeaf:
    """One part from all that was pulled back to a leaf."""
    if len(pieces) == 1 and len(pieces[0][0]) > 1:
        tasks, value, why = pieces[0]
        if not isinstance(value, Product | Table | Values):
            value = Values(rows=mean_over(value, axis_name))
        return OfLeaf(value, tasks, leaf, why)
    rows: dict[int, jax.Array] = {}
    for tasks, value, _ in pieces:
        for i, task in enumerate(tasks):
            row = value if len(tasks) == 1 else _row(value, i)
            rows[task] = rows[task] + row if task in rows else row
    reasons = {why for _, _, why in pieces}
    why = reasons.pop() if len(reasons) == 1 else "tasks reach it in several ways"
    if not rows:
        rows, why = {0: jnp.zeros_like(leaf)}, "no loss depends on it"
    among = tuple(sorted(rows))
    each = tuple(mean_over(rows[task], axis_name) for task in among)
    return OfLeaf(Values(rows=each), among, leaf, why)


def _row(value: Any, i: int) -> jax.Array:
    return value.row(i) if isinstance(value, Product | Table | Values) else value[i]
