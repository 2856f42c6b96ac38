"""What a backward pass does to a gradient behind its last product."""

from typing import Any

import jax
from jax import lax

from mtl_optax.core.trees.replicated import placed

# ("transpose", permutation) | ("reshape", sizes) | ("cast", dtype)
# | ("place", sharding), of one task's row.
Views = tuple[tuple[str, Any], ...]


def seen_as(row: jax.Array, views: Views, *, rounded: bool = True) -> jax.Array:
    """One row, rearranged from its product to the gradient, and rounded likewise."""
    for step, what in views:
        if step == "transpose":
            row = lax.transpose(row, what)
        elif step == "reshape":
            row = lax.reshape(row, what)
        elif step == "place":
            row = placed(row, what)
        elif rounded:
            row = row.astype(what)
    return row
