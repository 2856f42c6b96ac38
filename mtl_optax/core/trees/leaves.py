"""Choosing leaves of a tree: by a tree of labels, a prefix of one, or a function.

Internal to the library.
"""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def spread(
    prefix: Any, tree: Any, is_leaf: Any = None, *, what: str = "the labels"
) -> list[tuple[str, Any]]:
    """Name and label of each leaf of `tree`.

    `prefix` is a tree of labels like `tree`, a prefix of one, or a function of `tree`;
    `what` it is called in an error.
    """
    found: list[tuple[str, Any]] = []

    def read(path: Any, label: Any, part: Any) -> None:
        for below, _ in jax.tree_util.tree_leaves_with_path(part):
            found.append((jax.tree_util.keystr((*path, *below)), label))

    labels = prefix(tree) if is_function(prefix, is_leaf) else prefix
    try:
        jax.tree_util.tree_map_with_path(read, labels, tree, is_leaf=is_leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must be a tree like the parameters, a prefix of one, or a "
            "function from parameters to one, and does not fit them: "
            f"{misfit(labels, tree, is_leaf)}. Give every leaf of the parameters its "
            "entry, and nothing else one; jax.tree_util.tree_map_with_path over the "
            "parameters makes such a tree."
        ) from error
    return found


def is_function(x: Any, is_leaf: Any = None) -> bool:
    """Whether to call it for a tree; a module that can be called is a tree itself."""
    if isinstance(x, jax.tree_util.Partial):  # a function that is a node
        return True
    return callable(x) and any(x is y for y in jax.tree.leaves(x, is_leaf=is_leaf))


def children(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Key and subtree of each child, and what puts them together again."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    return [(path[0] if path else None, child) for path, child in pairs], treedef


def misfit(labels: Any, tree: Any, is_leaf: Any = None, path: Any = ()) -> str:
    """Where a tree of labels first differs from the tree that it should fit."""
    where = jax.tree_util.keystr(path) or "the top"
    if (is_leaf and is_leaf(labels)) or jax.tree_util.all_leaves([labels]):
        return ""
    ours, theirs = (dict(children(x)[0]) for x in (labels, tree))
    if type(labels) is not type(tree) or jax.tree_util.all_leaves([tree]):
        return (
            f"at {where} it has a {type(labels).__name__}, the parameters "
            f"a {type(tree).__name__}"
        )
    missing, more = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    for keys, problem in ((missing, "lacks"), (more, "has, and they lack,")):
        if keys:
            names = sorted(jax.tree_util.keystr((*path, key)) for key in keys)
            return f"it {problem} {', '.join(names)}"
    found = (misfit(x, theirs[k], is_leaf, (*path, k)) for k, x in ours.items())
    text = next(filter(None, found), "")
    return text or ("" if path else "the nodes of both carry different static data")


def chosen(mask: Any, tree: Any, what: str = "the mask") -> tuple[bool, ...]:
    """One bool a leaf of `tree`, from a mask as `spread` reads it."""
    pairs = spread(mask, tree, what=what)
    for name, keep in pairs:
        known = isinstance(keep, (bool, np.bool_, int, np.ndarray, jax.Array))
        if not known or np.size(keep) != 1:  # one that is traced is an error of JAX
            raise ValueError(
                f"{what} must be True or False on each leaf; leaf "
                f"{name or 'of the parameters'} has {keep!r}."
            )
    return tuple(bool(keep) for _, keep in pairs)


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
    if is_function(granularity) or not jax.tree_util.all_leaves([granularity]):
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
    labels = [label for _, label in spread(granularity, tree, what="granularity=")]
    try:
        order = list(dict.fromkeys(labels))
    except TypeError as error:
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
