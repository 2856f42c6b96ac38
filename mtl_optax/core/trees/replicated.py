"""Where arrays lie on a mesh: T-sized ones whole on every device, others as given."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
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


def mode_of(aval: Any) -> Any:
    """Types of the mesh's axes in an array's type: Explicit ones may be Auto inside."""
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    return None if mesh is None or mesh.empty else mesh.axis_types


def of_one_row(sharding: Any, ndim: int, axis: int) -> NamedSharding | None:
    """That of an array of `ndim` axes, without one of them; None if it has no mesh."""
    if not isinstance(sharding, NamedSharding):
        return None
    parts = [*sharding.spec, *[None] * (ndim - len(sharding.spec))]
    del parts[axis]
    return NamedSharding(sharding.mesh, PartitionSpec(*parts))


def placed(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The array there: by its type on Explicit axes, by a constraint on Auto ones."""
    if AxisType.Explicit in sharding.mesh.axis_types:
        return jax.sharding.reshard(array, sharding)
    return lax.with_sharding_constraint(array, sharding)


def whole(array: jax.Array) -> jax.Array:
    """The same on every device, if it was cut along an Explicit axis."""
    sharding = replicated(array)
    cut = sharding is not None and spread_out(jax.typeof(array))
    return placed(array, sharding) if cut else array  # type: ignore[arg-type]


def left_to_xla(fun: Callable[..., Any], *args: Any) -> Any:
    """T-sized arrays, `fun(*args)`, with Explicit axes as if they were Auto.

    What moves then is XLA's choice, where types would ask for every step's.
    """
    meshes = [x.mesh for x in map(replicated, jax.tree.leaves(args)) if x is not None]
    if not meshes:
        return fun(*args)
    pairs = zip(meshes[0].axis_names, meshes[0].axis_types, strict=True)
    axes = tuple(name for name, kind in pairs if kind == AxisType.Explicit)
    whole = jax.sharding.auto_axes(fun, axes=axes, out_sharding=PartitionSpec())
    return whole(*args)
