"""The models whose training steps are timed: trunk, one small head a task, data.

Parameters and data are NumPy's, so that a peer's process can have them without JAX at
work. Neighbouring tasks are in conflict: their heads are nearly the same and their
targets nearly opposite. Without conflict the weights are uniform, and every way of
computing them would seem to agree.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import zoo

OUTPUTS = 10  # of each head


class Problem(NamedTuple):
    """One model with its data."""

    model: str
    num_tasks: int
    params: Any
    losses_fn: Callable[..., Any]  # of parameters and data
    data: tuple[Any, ...]
    # Whether parameters are {"trunk": ..., "heads": ...}, and the trunk alone is shared
    trunk: bool = True
    quick: bool = False


# Numbers of tasks that each model is measured with
SIZES = {"mlp": (2, 4, 10, 40), "transformer": (8,), "cnn": (3,)}


def problem(
    model: str, num_tasks: int, *, quick: bool = False, **sizes: int
) -> Problem:
    """One of `BUILD`, a head a task; `sizes` of the MLP stand in place of its own."""
    random = np.random.default_rng(0)
    trunk, inputs, width = BUILD[model](random, quick, **sizes)
    names = [f"task{t:02}" for t in range(num_tasks)]
    kernel = _dense(random, width, OUTPUTS)["kernel"]
    heads = {name: _dense(random, width, OUTPUTS) for name in names}
    for head in heads.values():
        head["kernel"] = kernel + 0.1 * head["kernel"]
    rows = inputs.shape[:2] if inputs.dtype == np.int32 else inputs.shape[:1]
    # Above the first outputs and much the same in all rows, so that gradients follow
    # them: noise would average out, and leave what all tasks have in common.
    middle = random.normal(size=(num_tasks, OUTPUTS))
    middle[1:] -= 0.8 * middle[:-1]
    middle *= np.geomspace(10.0, 30.0, num_tasks)[:, None]
    noise = random.normal(size=(*rows, OUTPUTS))
    targets = {
        name: (middle[t] + noise).astype(np.float32) for t, name in enumerate(names)
    }
    params = {"trunk": trunk, "heads": heads}
    losses_fn = partial(_losses, TRUNKS[model])
    data = inputs, targets
    return Problem(model, num_tasks, params, losses_fn, data, quick=quick)


def _losses(
    features_fn: Callable[..., jax.Array], params: Any, inputs: Any, targets: Any
) -> dict[str, jax.Array]:
    """Mean squares; targets by task."""
    features, heads = features_fn(params["trunk"], inputs), params["heads"]
    return {task: head_loss(heads[task], features, targets[task]) for task in heads}


def head_loss(head: Any, features: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.mean((_linear(head, features) - target) ** 2)


def from_the_zoo(name: str, *, quick: bool = False) -> Problem:
    """One of `zoo.MODELS`; its losses alone, and all of its parameters are shared."""
    params, losses_fn, batch = zoo.MODELS[name]("small" if quick else "large")
    if name in zoo.WITH_AUX:
        losses_fn = partial(_first_of, losses_fn)
    shapes = jax.eval_shape(losses_fn, params, *batch)
    num_tasks = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    about = {"trunk": False, "quick": quick}
    return Problem(name, num_tasks, params, losses_fn, batch, **about)


def _first_of(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)[0]


def _dense(random: np.random.Generator, num_in: int, num_out: int) -> dict[str, Any]:
    kernel = random.normal(size=(num_in, num_out)) * np.sqrt(2 / num_in)
    bias = 0.01 * random.normal(size=num_out)
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def _row(vector: Any, like: jax.Array) -> jax.Array:
    return jnp.asarray(vector).reshape((1,) * (like.ndim - 1) + (-1,))


def _linear(layer: Any, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + _row(layer["bias"], x)


def _mlp(
    random: np.random.Generator,
    quick: bool,
    *,
    width: int | None = None,
    batch: int | None = None,
) -> tuple[Any, Any, int]:
    width, batch = width or (16 if quick else 1024), batch or (8 if quick else 256)
    layers = {f"layer{i}": _dense(random, width, width) for i in range(3)}
    return layers, random.normal(size=(batch, width)).astype(np.float32), width


def mlp(trunk: Any, x: Any) -> jax.Array:
    for layer in trunk.values():
        x = jax.nn.relu(_linear(layer, x))
    return x


# Of each convolution of 3x3: channels out, and stride
CONVOLUTIONS = ((64, 1), (64, 2), (128, 1), (128, 2))


def _cnn(random: np.random.Generator, quick: bool) -> tuple[Any, Any, int]:
    size, batch, part = (8, 4, 16) if quick else (32, 64, 1)
    layers, channels = {}, 3
    for i, (wide, _) in enumerate(CONVOLUTIONS):
        layer = _dense(random, 9 * channels, wide // part)
        layer["kernel"] = layer["kernel"].reshape(3, 3, channels, wide // part)
        layers[f"layer{i}"], channels = layer, wide // part
    images = random.normal(size=(batch, size, size, 3)).astype(np.float32)
    return layers, images, channels


def cnn(trunk: Any, x: Any) -> jax.Array:
    for layer, (_, stride) in zip(trunk.values(), CONVOLUTIONS, strict=True):
        x = jax.lax.conv_general_dilated(
            *(x, layer["kernel"], (stride, stride), ((1, 1), (1, 1))),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + _row(layer["bias"], x))
    return jnp.mean(x, axis=(1, 2))


HEADS = 4  # of attention
EPSILON = 1e-5  # of LayerNorm
DENSE = ("query", "key", "value", "out")


def _transformer(random: np.random.Generator, quick: bool) -> tuple[Any, Any, int]:
    width, vocabulary, blocks = (16, 50, 1) if quick else (256, 10_000, 3)
    batch, length = (2, 4) if quick else (4, 16)
    trunk = transformer_trunk(random, width, vocabulary, blocks, length)
    ids = random.integers(vocabulary, size=(batch, length)).astype(np.int32)
    return trunk, ids, width


def transformer_trunk(
    random: np.random.Generator, width: int, vocabulary: int, blocks: int, length: int
) -> Any:
    def norm() -> dict[str, Any]:
        return {
            "scale": np.ones(width, np.float32),
            "bias": np.zeros(width, np.float32),
        }

    def block() -> dict[str, Any]:
        dense = {name: _dense(random, width, width) for name in DENSE}
        up, down = _dense(random, width, 4 * width), _dense(random, 4 * width, width)
        return dense | {"up": up, "down": down, "before": norm(), "middle": norm()}

    def table(size: int) -> Any:
        return random.normal(size=(size, width)).astype(np.float32)

    return {
        "tokens": table(vocabulary),
        "places": table(length),
        "blocks": {f"block{i}": block() for i in range(blocks)},
        "last": norm(),
    }


def transformer(trunk: Any, ids: Any) -> jax.Array:
    x = trunk["tokens"][ids] + trunk["places"][None]
    for block in trunk["blocks"].values():
        x = x + _attention(block, _norm(block["before"], x))
        y = jax.nn.gelu(_linear(block["up"], _norm(block["middle"], x)))
        x = x + _linear(block["down"], y)
    return _norm(trunk["last"], x)


def _norm(layer: Any, x: jax.Array) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    unit = centred * jax.lax.rsqrt(variance + EPSILON)
    return unit * _row(layer["scale"], x) + _row(layer["bias"], x)


def _attention(block: Any, x: jax.Array) -> jax.Array:
    split = (*x.shape[:-1], HEADS, x.shape[-1] // HEADS)
    query, key, value = (
        _linear(block[name], x).reshape(split) for name in ("query", "key", "value")
    )
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(split[-1])
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
    return _linear(block["out"], mixed.reshape(x.shape))


BUILD: dict[str, Callable[..., tuple[Any, Any, int]]] = {
    "mlp": _mlp,
    "transformer": _transformer,
    "cnn": _cnn,
}
TRUNKS = {"mlp": mlp, "transformer": transformer, "cnn": cnn}
