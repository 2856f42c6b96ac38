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


_GRANULARITY = (
    'granularity must be one of None ("tree" is the same), "leaf", or labels of the '
    "leaves: a tree like the parameters, a prefix of one, or a function from "
    "parameters to one"
)


def one_block(granularity: Any) -> bool:
    """Whether all leaves belong together; raises for what is no granularity."""
    if granularity is None or isinstance(granularity, str):
        if granularity not in (None, "leaf", "tree"):
            raise ValueError(f"{_GRANULARITY}; got {granularity!r}.")
        return granularity != "leaf"
    if callable(granularity) or not jax.tree_util.all_leaves([granularity]):
        return False
    raise ValueError(f"{_GRANULARITY}; got {granularity!r}.")


def blocks_of(granularity: Any, tree: Any) -> tuple[int, ...] | None:
    """For each leaf the index of its block, in order of first leaves; None: one block.

    `granularity` is None, "leaf", or labels as `spread` reads them.
    """
    if one_block(granularity):
        return None
    if isinstance(granularity, str):
        return tuple(range(len(jax.tree.leaves(tree))))
    try:
        labels = [label for _, label in spread(granularity, tree)]
        order = list(dict.fromkeys(labels))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{_GRANULARITY}, each a string or a number. These labels do not fit "
            f"{jax.tree.structure(tree)}: {error}"
        ) from error
    return tuple(order.index(label) for label in labels)


def sum_by_block(values: Sequence[jax.Array], blocks: Sequence[int]) -> jax.Array:
    """Sums of the values, one a leaf, over the leaves of each block `[B, ...]`."""
    pairs = list(zip(values, blocks, strict=True))
    sums = [
        reduce(operator.add, [value for value, block in pairs if block == i])
        for i in range(max(blocks, default=-1) + 1)
    ]
    return jnp.stack(sums)
