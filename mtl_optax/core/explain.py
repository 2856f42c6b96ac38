"""What the Gramian of some losses costs, weight by weight, before it is computed."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads
from mtl_optax.core.task_grads.leaf_factors import Product
from mtl_optax.core.task_grads.leaf_tables import Table
from mtl_optax.core.task_grads.leaf_values import OfLeaf


class LeafForm(NamedTuple):
    """How one leaf's inner products are formed."""

    leaf: str
    form: str  # "rows", "lookups" or "values"
    tasks: int  # that reach it
    kept: int  # bytes that live until the weighted sum
    jacobian: int  # bytes of these tasks' gradients
    flops: int  # for Gramian and weighted sum, beside the backward pass
    direct: int  # for the gradients and their Gramian
    why: str


class Explanation(tuple[LeafForm, ...]):
    """One `LeafForm` a leaf; as text, a table."""

    def __str__(self) -> str:
        header = ("leaf", "form", "tasks", "kept", "Jacobian", "MFLOP", "direct", "why")
        rows = [header, *(_cells(row) for row in self), _total(self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i in range(2, 7) else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def __repr__(self) -> str:
        return f"<the forms of {len(self)} leaves; print it>"


def explain(
    losses_fn: Callable[..., Any],
    *,
    has_aux: bool = False,
    axis_name: Any = None,
    form: str = "auto",
) -> Callable[..., Explanation]:
    """Prints how `lazy_task_grads` forms each leaf's part of the Gramian, and why.

    "rows": from the factors of the gradient's last product; "lookups": from the rows
    looked up in a table of embeddings; "values": from the gradients themselves. Kept
    are the bytes that live until the weighted sum, where the Jacobian's would; MFLOP
    are those of Gramian and weighted sum in this form, beside the backward pass from
    layer to layer, and "direct" those of the gradients and their Gramian.

    Args:
      losses_fn: as in :func:`lazy_task_grads`.
      has_aux: as in :func:`lazy_task_grads`.
      axis_name: as in :func:`lazy_task_grads`; call it where the axis is mapped.
      form: as in :func:`lazy_task_grads`.

    Returns:
      A function `(params, *args, **kwargs) -> Explanation`, a tuple with one row a leaf
      that prints as the table. Nothing is computed: it traces.

    Raises:
      ValueError: as :func:`lazy_task_grads` does.

    Cost: tracing the losses and their backward passes once.

    When not to use it: in a training step; it prints. For methods that see losses only,
    or single coordinates, which form no Gramian of parameters.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> def losses_fn(params, x):
      ...     h = jnp.tanh(x @ params["trunk"])
      ...     return {"a": jnp.mean(h @ params["a"]), "b": jnp.mean(h @ params["b"])}
      >>> params = {"trunk": jnp.ones((64, 64)), "a": jnp.ones(64), "b": jnp.ones(64)}
      >>> found = mtl.explain(losses_fn)(params, jnp.ones((8, 64)))
      leaf       form    tasks     kept  Jacobian  MFLOP  direct  why
      ['a']      values      1    256 B     256 B    0.0     0.0  one task reaches it
      ['b']      values      1    256 B     256 B    0.0     0.0  one task reaches it
      ['trunk']  rows        2  4.0 KiB  32.0 KiB    0.0     0.2  cheaper by rows
      total                     4.5 KiB  32.5 KiB    0.0     0.2
      >>> [row.form for row in found]
      ['values', 'values', 'rows']
    """
    grads_fn = lazy_task_grads(
        losses_fn, has_aux=has_aux, axis_name=axis_name, form=form
    )

    def explained(params: optax.Params, *args: Any, **kwargs: Any) -> Explanation:
        found: list[LeafForm] = []

        def traced(params: optax.Params) -> None:
            _, lazy = grads_fn(params, *args, **kwargs)
            paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
            for path, leaf in zip(paths, lazy.computed().leaves, strict=True):
                found.append(_row(jax.tree_util.keystr(path) or "params", leaf))

        jax.eval_shape(traced, params)
        explanation = Explanation(found)
        print(explanation)
        return explanation

    return explained


def _row(name: str, leaf: OfLeaf) -> LeafForm:
    part, tasks = leaf.part, len(leaf.tasks)
    size = math.prod(leaf.like.shape)
    jacobian = tasks * size * leaf.like.dtype.itemsize
    flops = direct = 2 * tasks**2 * size
    form, kept = "values", jacobian
    if isinstance(part, Product):
        form, sizes = "rows", part.sizes()
        kept = part.d.size * part.d.dtype.itemsize
        flops, direct = 2 * sizes.by_rows(), 2 * sizes.direct()
    elif isinstance(part, Table):
        form = "lookups"
        kept = part.updates.size * part.updates.dtype.itemsize
        flops = 2 * tasks * part.updates.size
    return LeafForm(name, form, tasks, kept, jacobian, flops, direct, leaf.why)


def _total(rows: Explanation) -> tuple[str, ...]:
    kept, jacobian, flops, direct = (
        sum(getattr(row, name) for row in rows)
        for name in ("kept", "jacobian", "flops", "direct")
    )
    costs = (_bytes(kept), _bytes(jacobian), _mega(flops), _mega(direct))
    return ("total", "", "", *costs, "")


def _cells(row: LeafForm) -> tuple[str, ...]:
    costs = (_bytes(row.kept), _bytes(row.jacobian), _mega(row.flops))
    return (row.leaf, row.form, str(row.tasks), *costs, _mega(row.direct), row.why)


def _bytes(number: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:.0f} B" if units[0] == "B" else f"{number:.1f} {units[0]}"


def _mega(flops: int) -> str:
    return f"{flops / 1e6:.1f}"
