"""Both branches of a `lax.cond` return the same types, whatever a chain inside does."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def zeros_of(shapes: Any) -> Any:
    """Zeros in the types that `jax.eval_shape` found, shardings included."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, x.dtype), shapes)


def strong(tree: Any) -> Any:
    """The same arrays, never weakly typed."""
    return jax.tree.map(_in_type_of, tree, tree)


def as_before(what: str, new: Any, old: Any) -> Any:
    """A new state in the dtypes of the old one, which loops and branches carry on.

    Raises:
      ValueError: if its structure or a shape has changed.
    """
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=False)
    structures = {jax.tree.structure(new), jax.tree.structure(old)}
    if len(structures) > 1 or any(jnp.shape(n) != jnp.shape(o) for n, o in pairs):
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, new)]
        raise ValueError(
            f"{what} changes its state in an update from the shapes {shapes[0]} to "
            f"{shapes[1]}, so that no loop or branch can carry it. In most cases a "
            "stateful transformation, such as Adam, stands before the method: put the "
            "method first. mtl_optax.check_chain(tx, params, num_tasks) tells."
        )
    return jax.tree.map(_in_type_of, new, old)


def _in_type_of(new: Any, old: Any) -> jax.Array:
    dtype = jnp.result_type(old)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return new
    return lax.convert_element_type(new, dtype)
