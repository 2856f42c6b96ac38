"""Choosing leaves of a tree: by a tree of labels, a prefix of one, or a function.

Internal to the library.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax


def spread(prefix: Any, tree: Any, is_leaf: Any = None) -> list[tuple[str, Any]]:
    """Name and label of each leaf of `tree`.

    `prefix` is a tree of labels like `tree`, a prefix of one, or a function of `tree`.
    """
    found: list[tuple[str, Any]] = []

    def read(path: Any, label: Any, part: Any) -> None:
        for below, _ in jax.tree_util.tree_leaves_with_path(part):
            found.append((jax.tree_util.keystr((*path, *below)), label))

    labels = prefix(tree) if callable(prefix) else prefix
    jax.tree_util.tree_map_with_path(read, labels, tree, is_leaf=is_leaf)
    return found


def chosen(mask: Any, tree: Any) -> tuple[bool, ...]:
    """One bool a leaf of `tree`, from a mask as `spread` reads it."""
    return tuple(bool(keep) for _, keep in spread(mask, tree))


def only(tree: Any, kept: tuple[bool, ...]) -> Any:
    """The tree with MaskedNode, which has no leaves, in place of those not kept."""
    leaves, treedef = jax.tree.flatten(tree)
    pairs = zip(leaves, kept, strict=True)
    return jax.tree.unflatten(
        treedef, [leaf if keep else optax.MaskedNode() for leaf, keep in pairs]
    )


def blocks_of(granularity: Any, tree: Any) -> tuple[int, ...] | None:
    """For each leaf the index of its block, in order of first leaves; None: one block.

    `granularity` is None, "leaf", or labels as `spread` reads them.
    """
    if granularity is None or granularity == "tree":
        return None
    if isinstance(granularity, str) and granularity == "leaf":
        return tuple(range(len(jax.tree.leaves(tree))))
    try:
        labels = [label for _, label in spread(granularity, tree)]
    except ValueError as error:
        raise ValueError(
            'granularity= must be None, "leaf", or labels of the leaves: a tree like '
            "the parameters, a prefix of one, or a function from parameters to one. "
            f"These labels do not fit {jax.tree.structure(tree)}: {error}"
        ) from error
    order = list(dict.fromkeys(labels))
    return tuple(order.index(label) for label in labels)


def sum_by_block(values: Sequence[jax.Array], blocks: Sequence[int]) -> jax.Array:
    """Sums of the values, one a leaf, over the leaves of each block `[B, ...]`."""
    pairs = list(zip(values, blocks, strict=True))
    sums = [
        reduce(operator.add, [value for value, block in pairs if block == i])
        for i in range(max(blocks, default=-1) + 1)
    ]
    return jnp.stack(sums)
