"""init_like: an optimizer state that lies where its parameters lie."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from mtl_optax.core.trees.replicated import spread_out
from mtl_optax.core.weighting import check_transformation


def init_like(tx: optax.GradientTransformation, params: Any) -> Any:
    r"""The state of `tx.init(params)`, each array of it placed with the parameters.

    .. math:: s = \mathrm{init}(p), \quad
      \mathrm{sharding}(s_{[\ldots, *p_i]}) = (\mathrm{None}, \ldots, *\mathrm{spec}_i)

    Moments, and whatever else stands in the state where a parameter p_i stands in
    `params` and ends with its shape (gradients of T tasks, `[T, *param]`, too), get the
    sharding of that parameter, its leading axes replicated. All else, such as task
    weights, Gramians, counts and random keys, is replicated over the parameters' mesh.

    Args:
      tx: any optax transformation: a method, a wrapper, a chain of either.
      params: the parameters, placed as they will be trained: on one device, or by
        `NamedSharding` on one mesh, of Auto or Explicit axes, of one process or of
        many (all of which then make this call). Leaves of `jax.ShapeDtypeStruct` with a
        sharding stand for parameters that are not there yet.

    Returns:
      The state: structure, shapes, dtypes and numbers of `tx.init(params)`. For
      `jax.ShapeDtypeStruct` the same as `jax.ShapeDtypeStruct`, each with its sharding:
      a target into which a checkpoint is restored, in any number of processes, without
      memory for a state that is thrown away. A state of `init_like` may be such a
      target as well.

    Raises:
      ValueError: for what is no transformation; for traced parameters, whose place JAX
        does not tell; for parameters on several devices without a `NamedSharding`, or
        on different sets of devices.

    Cost: one compilation of `tx.init`, and no memory besides the state: no device ever
    holds more of it than its own part.

    When not to use it: on one device, where it is `tx.init`. On several, `jax.jit` of
    `tx.init` alone leaves zeros on one device of each process, or on an Auto mesh whole
    on all of them; orbax then refuses to save ("host local jax.Array"), or restores
    what the step refuses to take ("incompatible devices").

    Example:
      >>> import jax, jax.numpy as jnp, optax, mtl_optax as mtl
      >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
      >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
      >>> params = jax.device_put({"w": jnp.ones(4)}, NamedSharding(mesh, P("data")))
      >>> tx = optax.chain(mtl.cagrad(num_tasks=2), optax.adam(1e-3))
      >>> state = mtl.init_like(tx, params)
      >>> tuple(optax.tree.get(state, "mu")["w"].sharding.spec)
      ('data',)
      >>> tuple(mtl.task_weights(state).sharding.spec)
      ()

    References:
      `findings/jit_init_loses_sharding.sh`, for what JAX does by itself.
    """
    check_transformation("init_like", tx)
    leaves = tree_leaves_with_path(params)
    abstract = any(isinstance(x, jax.ShapeDtypeStruct) for _, x in leaves)
    state = jax.eval_shape(tx.init, params)
    places = _places(leaves)
    if not places:  # anywhere, and so the state
        return state if abstract else jax.jit(tx.init)(params)
    shardings = _shardings(tx, params, state, places)
    if not abstract:
        return jax.jit(tx.init, out_shardings=shardings)(params)
    return jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
        state,
        shardings,
    )


def _places(leaves: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """By path: the sharding of each parameter that is bound to lie where it does."""
    found = {}
    for path, leaf in leaves:
        if isinstance(leaf, jax.core.Tracer):
            raise ValueError(
                f"init_like: parameter {_name(path)} is traced, and a traced array "
                "does not say where it lies. Call init_like outside jax.jit, jax.vmap "
                "and jax.eval_shape, on the parameters themselves; leaves of "
                "jax.ShapeDtypeStruct with a sharding give a state of such leaves."
            )
        sharding = getattr(leaf, "sharding", None)
        if sharding is not None and getattr(leaf, "committed", True):
            found[path] = sharding
    _check(found)
    return found


def _check(places: dict[Any, Any]) -> None:
    """All on the same devices, and where these are several by a mesh."""
    for path, at in places.items():
        if len(at.device_set) > 1 and not isinstance(at, NamedSharding):
            raise ValueError(
                f"init_like: parameter {_name(path)} lies on {len(at.device_set)} "
                f"devices by {at}, which names no mesh for the rest of the state. "
                f"{_CURE}"
            )
    for path, at in places.items():
        first, other = next(iter(places.items()))
        if at.device_set != other.device_set:
            raise ValueError(
                f"init_like: parameter {_name(first)} lies on {_devices(other)}, "
                f"{_name(path)} on {_devices(at)}. {_CURE}"
            )


_CURE = (
    "Place all parameters on one mesh, for example params = jax.device_put(params, "
    "NamedSharding(mesh, PartitionSpec()))."
)


def _devices(sharding: Any) -> str:
    ids = sorted(device.id for device in sharding.device_set)
    return f"devices {ids}" if len(ids) <= 8 else f"{len(ids)} devices from {ids[0]} on"


def _name(path: Any) -> str:
    return keystr(path) or "(a single array)"


def _shardings(tx: Any, params: Any, state: Any, places: dict[Any, Any]) -> Any:
    """Where each leaf of the state belongs."""
    meshes = [at.mesh for at in places.values() if isinstance(at, NamedSharding)]
    if not meshes:  # all on one device
        return jax.tree.map(lambda _: next(iter(places.values())), state)
    shapes = {path: jnp.shape(x) for path, x in tree_leaves_with_path(params)}
    mirrors = _mirrors(tx, params, places) if () in shapes else None

    def place(path: Any, leaf: Any) -> NamedSharding:
        for start in range(len(path) + 1):  # the longest that is a parameter's path
            at, shape = places.get(path[start:]), shapes.get(path[start:])
            if not isinstance(at, NamedSharding) or shape is None:
                continue
            lead = leaf.ndim - len(shape)
            if leaf.shape[max(lead, 0) :] == shape and (
                mirrors is None or path in mirrors
            ):
                return _behind(lead, at, leaf.ndim) if lead else at
        return _behind(0, NamedSharding(meshes[0], PartitionSpec()), leaf.ndim)

    return tree_map_with_path(place, state)


def _behind(lead: int, at: NamedSharding, ndim: int) -> NamedSharding:
    """With so many replicated axes before; the spec as JAX writes that of a result.

    Others mean the same, but the second step would be compiled anew.
    """
    parts = [None] * lead + list(at.spec)
    parts += [None] * (ndim - len(parts))
    while AxisType.Explicit not in at.mesh.axis_types and parts and parts[-1] is None:
        parts.pop()
    return NamedSharding(at.mesh, PartitionSpec(*parts), memory_kind=at.memory_kind)


def _mirrors(tx: Any, param: Any, places: dict[Any, Any]) -> set[Any]:
    """Paths in the state that are cut as the parameter is, where this is one array.

    Then no path tells a moment `[n]` from the weights of n tasks. On a mesh of Explicit
    axes the types of JAX do.
    """
    at = places[()]
    kinds = (AxisType.Explicit,) * len(at.mesh.axis_names)
    mesh = AbstractMesh(at.mesh.axis_sizes, at.mesh.axis_names, axis_types=kinds)
    typed = jax.ShapeDtypeStruct(
        param.shape, param.dtype, sharding=NamedSharding(mesh, at.spec)
    )
    with jax.sharding.use_abstract_mesh(mesh):
        state = jax.eval_shape(tx.init, typed)
    return {path for path, x in tree_leaves_with_path(state) if spread_out(x)}
