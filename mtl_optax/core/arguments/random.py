"""Random state of methods: raw key data, because typed keys break optax.contrib.sam."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

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


def is_key(leaf: Any) -> bool:
    """Whether a leaf of a state holds keys: typed ones, or raw key data, as in JAX."""
    dtype, shape = jnp.result_type(leaf), jnp.shape(leaf)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return True
    ours = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    return dtype == ours.dtype and shape[-1:] == ours.shape


def one_a_task(keys: jax.Array, num_tasks: int) -> jax.Array:
    """The keys in a leaf folded with each task's index, `[T, ...]`, typed or raw."""
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    tasks = jnp.arange(num_tasks, dtype=jnp.uint32)
    flat = (keys if typed else jax.random.wrap_key_data(keys)).reshape(-1)
    each = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(flat, tasks)
    folded = each if typed else jax.random.key_data(each)
    return folded.reshape(num_tasks, *keys.shape)


def next_key(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A fresh typed key for this step, and the raw key for the state."""
    use, keep = jax.random.split(jax.random.wrap_key_data(raw))
    return use, jax.random.key_data(keep)


def uniforms(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Numbers in [0, 1), multiples of 2**-24, from a typed key: cheap, for masks.

    Each is a hash of its place and the key: the finaliser of MurmurHash3, once for each
    word of the key. `jax.random.uniform` is ten times as dear as what is done with it
    in an update that draws a number a parameter; this is fused into it, wherever the
    array is. Places are told apart up to 2**32 of them.
    """
    place = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        step = jnp.uint32(stride % 2**32)
        place += step * lax.broadcasted_iota(jnp.uint32, shape, axis)
        stride *= shape[axis]
    for word in jax.random.key_data(key):
        place = _mixed(place ^ word)
    return (place >> 8).astype(jnp.float32) * 2.0**-24


def standard_normals(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers from a typed key, as cheap: of those numbers in (0, 1).

    None is farther from 0 than 5.5.
    """
    uniform = 2 * uniforms(key, shape) - (1 - 2.0**-24)  # the middle of its step, exact
    return math.sqrt(2) * lax.erf_inv(uniform)


def _mixed(x: jax.Array) -> jax.Array:
    """A permutation of uint32 in which every bit depends on all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
