"""Parameters moved along a direction, given leaf by leaf, on some of their leaves."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.stacked import task_norms

Leaves = list[jax.Array]


def moved(
    params: optax.Params, kept: tuple[bool, ...], length: Any, direction: Leaves
) -> optax.Params:
    """The parameters, the kept leaves so far along the direction."""
    leaves, treedef = jax.tree.flatten(params)
    steps = iter(direction)
    new = [
        (p + length * next(steps)).astype(p.dtype) if keep else p
        for p, keep in zip(leaves, kept, strict=True)
    ]
    return jax.tree.unflatten(treedef, new)


def unit(leaves: Leaves) -> Leaves:
    """The leaves over their norm; zeros where that is zero or not finite."""
    length = norm(leaves)
    sound = (length > 0) & jnp.isfinite(length)
    return [jnp.where(sound, x / jnp.where(sound, length, 1), 0) for x in leaves]


def norm(leaves: Leaves) -> jax.Array:
    """Norm over all leaves, of any size."""
    return task_norms([x[None] for x in leaves])[0]


def wide(tree: Any) -> Leaves:
    """The leaves of a tree, in float32 or wider."""
    return [x.astype(jnp.result_type(float)) for x in jax.tree.leaves(tree)]
