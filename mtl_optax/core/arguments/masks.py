"""Masks of shared leaves: some are shared, and some are not."""

import warnings
from typing import Any

from mtl_optax.core.trees.leaves import chosen


def some_shared(mask: Any, tree: Any) -> tuple[bool, ...]:
    """One bool a leaf, from a mask of the shared leaves that is True on some of them.

    Raises if it is True on none, and warns if it is on all.
    """
    kept = chosen(mask, tree, "shared=")
    if kept and not any(kept):
        raise ValueError(
            "shared= is False on every leaf, so that the method would never act: put "
            "True on the leaves that all tasks use. (A function may have looked for "
            "names that these parameters do not have.) Where nothing is shared, "
            "mtl_optax.unitary(num_tasks) gives each leaf its owner's own gradient."
        )
    if kept and all(kept):
        no_effect("shared= is True on every leaf")
    return kept


def no_effect(why: str) -> None:
    """Warns about an `on_shared` that does nothing."""
    warnings.warn(
        f"{why}, so that on_shared has no effect: leave it away, or tell it which "
        "leaves belong to single tasks, their heads. (mtl_optax.nn.shared looks for "
        "`own` in their paths.)",
        stacklevel=4,
    )
