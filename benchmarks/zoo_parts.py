"""What the models of the zoo are made of: random arrays, dense layers, losses."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Model(NamedTuple):
    """`losses_fn(params, *batch)` has the losses, in the form that users return."""

    params: Any
    losses_fn: Callable[..., Any]
    batch: tuple[Any, ...]


def pick(size: str, small: Any, large: Any) -> Any:
    return {"small": small, "large": large}[size]


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(scale))


def ids(rng: np.random.Generator, below: int, *shape: int) -> jax.Array:
    return jnp.asarray(rng.integers(below, size=shape), jnp.int32)


def kernel(rng: np.random.Generator, *shape: int) -> jax.Array:
    """Any axes, of which the last but one is summed over."""
    return normal(rng, *shape, scale=shape[-2] ** -0.5)


def dense(rng: np.random.Generator, inputs: int, outputs: int) -> dict[str, jax.Array]:
    return {"w": kernel(rng, inputs, outputs), "b": normal(rng, outputs, scale=0.1)}


def apply(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    out = x @ layer["w"]
    return out + jnp.expand_dims(layer["b"], range(out.ndim - 1))


def row(x: jax.Array, like: jax.Array) -> jax.Array:
    """With axes of size 1 in front, for arrays of equal rank."""
    return jnp.expand_dims(x, range(like.ndim - x.ndim))


def square(out: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((out - y) ** 2)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logs, labels[..., None], axis=-1))


def trunk_and_heads(
    rng: np.random.Generator, width: int, num_tasks: int, layers: int = 3
) -> dict[str, Any]:
    return {
        "trunk": [dense(rng, width, width) for _ in range(layers)],
        "heads": [dense(rng, width, 4) for _ in range(num_tasks)],
    }


def trunk(layers: list[Any], x: jax.Array) -> jax.Array:
    for layer in layers:
        x = jnp.tanh(apply(layer, x))
    return x


def head_losses(heads: list[Any], z: jax.Array, targets: jax.Array) -> dict[str, Any]:
    """One loss a head; targets `[T, rows, 4]`."""
    return {
        f"task{t}": square(apply(head, z), targets[t]) for t, head in enumerate(heads)
    }


def made(make: Callable[..., nnx.Module]) -> Any:
    """An NNX module split into definition, parameters and the rest.

    Filled by NumPy, since compiling what Flax draws takes seconds.
    """
    rng = np.random.default_rng(0)

    def filled(path: Any, leaf: Any) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), leaf.shape)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        if "kernel" in name or "embedding" in name:
            lead = leaf.shape[-1:] if "embedding" in name else leaf.shape[:-1]
            return normal(rng, *leaf.shape, scale=math.prod(lead) ** -0.5)
        return ("scale" in name or "var" in name) + normal(rng, *leaf.shape, scale=0.1)

    graphdef, state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    state = jax.tree_util.tree_map_with_path(filled, state)
    return graphdef, *nnx.split_state(state, nnx.Param, ...)


def mlp_sizes(size: str) -> tuple[int, int]:
    """Width and rows."""
    return pick(size, (12, 5), (1024, 256))


def mlp(size: str, losses_fn: Any, num_tasks: int = 3, **more: Any) -> Model:
    """A trunk of three layers, heads of four outputs, and parameters besides."""
    width, rows = mlp_sizes(size)
    rng = np.random.default_rng(0)
    params = trunk_and_heads(rng, width, num_tasks) | more
    batch = normal(rng, rows, width), normal(rng, num_tasks, rows, 4)
    return Model(params, losses_fn, batch)


def mlp_losses(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    return head_losses(params["heads"], trunk(params["trunk"], x), y)
