"""T-sized arrays lie whole on every device of the parameters' mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def replicated_zeros(shape: tuple[int, ...], params: optax.Params) -> jax.Array:
    """T-sized state, replicated over the mesh of `params` if it is an explicit one."""
    sharding = next(filter(None, map(replicated, jax.tree.leaves(params))), None)
    return jnp.zeros(shape, jnp.result_type(float), device=sharding)


def replicated(leaf: Any) -> NamedSharding | None:
    """A replicated sharding on the leaf's mesh if its axes are Explicit, else None."""
    mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
    if mesh is None or mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, PartitionSpec())


def spread_out(aval: Any) -> bool:
    """Whether an array of this type is cut along an Explicit axis of a mesh."""
    sharding: Any = getattr(aval, "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    if mesh is None or mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return False
    return any(part is not None for part in sharding.spec)
