"""A predicate that `jax.lax.cond` still branches on under `jax.vmap`."""

import jax
import jax.numpy as jnp


@jax.custom_batching.custom_vmap
def any_lane(pred: jax.Array) -> jax.Array:
    """The predicate `[]`; under `jax.vmap`, whether it holds in any lane.

    For a branch that is seldom needed and right in every lane: under `jax.vmap` a
    `cond` on one predicate a lane runs both of its branches always.
    """
    return pred


@any_lane.def_vmap
def _over_lanes(_: int, batched: list[bool], pred: jax.Array) -> tuple[jax.Array, bool]:
    return any_lane(jnp.any(pred, axis=0) if batched[0] else pred), False
