"""Random state of methods: raw key data, because typed keys break optax.contrib.sam."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.checks import STATIC_ARGS_HINT


def raw_key(key: Any) -> jax.Array:
    """Raw uint32 key data from an int, a typed key or raw key data."""
    array = jnp.asarray(key)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) and array.shape == ():
        data = jax.random.key_data(array)
        ours = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        # The state does not know of which kind its key is: always of the default one.
        same = data.shape == ours.shape
        return data if same else jax.random.bits(array, ours.shape, ours.dtype)
    if jnp.issubdtype(array.dtype, jnp.integer) and array.shape == ():
        return jax.random.key_data(jax.random.key(array))
    if array.dtype == jnp.uint32 and array.ndim == 1:
        return array
    raise ValueError(
        "key must be an int, a key from jax.random.key, or raw key data; got shape "
        f'{array.shape} and dtype {array.dtype}. {STATIC_ARGS_HINT} "key" is one.'
    )


def next_key(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A fresh typed key for this step, and the raw key for the state."""
    use, keep = jax.random.split(jax.random.wrap_key_data(raw))
    return use, jax.random.key_data(keep)
