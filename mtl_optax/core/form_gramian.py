"""Which gradients a weighting's Gramian is of, and in which form they are left."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.gramians import gramian, leaf_gramians
from mtl_optax.core.lazy import LazyTaskGrads
from mtl_optax.core.task_rows import TaskRows
from mtl_optax.core.trees.leaves import chosen, only


def form_gramian(
    updates: Any, per_leaf: bool, kept: tuple[bool, ...] | None, mask: jax.Array | None
) -> tuple[jax.Array, Any, Any]:
    """The Gramian of stacked or lazy gradients, over the leaves `kept`.

    Returns:
      The Gramian, `[T, T]` (`[L, T, T]` for L leaves); the computed gradients that it
      is of, None if there are none or it is per leaf; and all gradients, in the form
      that is cheapest to sum next.
    """
    rows = gradients = updates
    if isinstance(updates, LazyTaskGrads):
        if updates.gramian is not None and not per_leaf and kept is None:
            return updates.gramian, None, updates
        if kept is not None and mask is None:
            rows = updates.select(kept).rows()
            return gramian(rows), rows, updates
        rows = gradients = updates.rows()
    if per_leaf:
        return jnp.stack(leaf_gramians(rows)), None, gradients
    if kept is not None and isinstance(rows, TaskRows):
        rows = TaskRows(tuple(only(tree, kept) for tree in rows.trees))
    elif kept is not None:
        rows = only(rows, kept)
    return gramian(rows), rows, gradients


def kept_leaves(leaves: Any, tree: Any) -> tuple[bool, ...] | None:
    """One bool for each leaf of the tree that the Gramian is taken over, or None."""
    kept = None if leaves is None else chosen(leaves, tree)
    if kept and not any(kept):
        raise ValueError(
            "leaves= names no leaf to take the Gramian over: it must be True on one or "
            f"more leaves of {jax.tree.structure(tree)}."
        )
    return kept
