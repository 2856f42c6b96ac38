"""The two forms of computed task gradients: one stack, or T trees side by side.

A leaf is either an array `[T, *param]` or, where task gradients were pulled back one by
one, a tuple of T arrays `[*param]`, which no pass over them stacks as a whole.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

LeafRows = jax.Array | tuple[jax.Array, ...]


class TaskRows(NamedTuple):
    """T gradients as T separate trees (no stack); internal to the library."""

    trees: tuple[optax.Updates, ...]


def leaf_rows(task_gradients: Any) -> tuple[list[LeafRows], Any]:
    """The leaves, each `[T, *param]` or a tuple of T arrays, and their tree."""
    if isinstance(task_gradients, TaskRows):
        per_task = [jax.tree.leaves(tree) for tree in task_gradients.trees]
        treedef = jax.tree.structure(task_gradients.trees[0])
        return list(zip(*per_task, strict=True)), treedef
    leaves, treedef = jax.tree.flatten(task_gradients)
    return [jnp.asarray(leaf) for leaf in leaves], treedef
