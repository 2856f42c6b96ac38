"""From linearised losses, or a pull-back, to task gradients layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.layerwise.forms import Rule
from mtl_optax.core.layerwise.regions import Pieces, Tasks, Together, pull_back
from mtl_optax.core.task_grads.data_axis import mean_over
from mtl_optax.core.task_grads.leaf_factors import Product
from mtl_optax.core.task_grads.leaf_parts import (
    by_rows,
    evaluated,
    last_products,
    tables,
    why_so,
)
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
        alone: Sequence[int | None],
    ) -> Sequence[Pieces]:
        transposed = jax.linear_transpose(function, *types)
        if form == "auto" and convolves(function, types):
            why = "convolutions are slower for tasks together"
            return one_by_one(transposed, tasks, cotangents, why)
        try:
            closed, found = last_products(
                jax.vmap(transposed), cotangents, leaves, rule
            )
        except Exception as error:  # a true one comes again, one by one
            return one_by_one(transposed, tasks, cotangents, _alone(error))
        if form == "auto" and not any(by_rows(x, rule) or tables(x) for x in found):
            # As cheap, and in less memory at a time.
            why = "no weight that these tasks share has fewer rows than inputs"
            return one_by_one(transposed, tasks, cotangents, why)
        made = evaluated(closed, found, cotangents, rule)
        return [
            [(tasks, value, why_so(one, rule))]
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
        alone: Sequence[int | None],
    ) -> Sequence[Pieces]:
        transposed = jax.linear_transpose(function, *types)
        if chunk_size is None and convolves(function, types):
            # In a loop XLA's CPU takes a naive form of a kernel's gradient.
            return one_by_one(transposed, tasks, cotangents, "")
        # A loop writes every row into the stack: rows beside it would be a second one.
        stacks = lax.map(transposed, list(cotangents), batch_size=chunk_size)
        return [[(tasks, stack, "")] for stack in stacks]

    return _parts(losses_of, ones, params, together, axis_name)


def _alone(error: Exception) -> str:
    """For a backward pass that JAX cannot map over tasks: no rule for it, mostly."""
    return f"its backward pass takes one task at a time ({type(error).__name__})"


def convolves(function: Callable[..., Any], types: Sequence[Any]) -> bool:
    """Whether there is a convolution in it."""
    eqns = jax.make_jaxpr(function)(*types).jaxpr.eqns
    return jaxprs.CONVOLUTION in jaxprs.names_in(eqns)


def one_by_one(
    transposed: Callable[[Any], Any],
    tasks: Tasks,
    cotangents: Sequence[jax.Array],
    why: str,
) -> Sequence[Pieces]:
    """The pieces of a region whose tasks are pulled back apart."""
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
    return [merged(pieces, leaf, axis_name) for pieces, leaf in each]


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
        return [merged(*one, None) for one in zip(rows, like, strict=True)]
    try:
        closed, found = last_products(jax.vmap(pullback), cotangents, None, rule)
    except Exception as error:
        leaves, treedef = jax.tree.flatten(cotangents)

        def flat(leaves: Sequence[jax.Array]) -> Sequence[Any]:
            return jax.tree.leaves(pullback(jax.tree.unflatten(treedef, leaves)))

        each = one_by_one(flat, tasks, leaves, _alone(error))
    else:
        made = evaluated(closed, found, cotangents, rule)
        each = [
            [(tasks, value, why_so(one, rule))]
            for one, value in zip(found, made, strict=True)
        ]
    return [merged(pieces, leaf, None) for pieces, leaf in zip(each, like, strict=True)]


def merged(pieces: Pieces, leaf: jax.Array, axis_name: Any) -> OfLeaf:
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
