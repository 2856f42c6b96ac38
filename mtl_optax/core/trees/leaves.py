"""Choosing leaves of a tree: by a tree of labels, a prefix of one, or a function.

Internal to the library.
"""

from typing import Any

import jax
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
