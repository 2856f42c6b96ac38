"""A tanh network and its derivatives by the inputs, carried forward through the layers.

Value, first and second derivatives go through a layer together, as rows of one product:
what reverse mode over reverse mode would compute, in a fraction of the time.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

INPUTS = 2
# GPUs else round factors to 10 bits, which second derivatives do not bear.
product = partial(jnp.matmul, precision="highest")


class Size(NamedTuple):
    """How much is computed in a step."""

    inside: int  # points of the residual
    hidden: int  # layers
    width: int


class Derivatives(NamedTuple):
    """Of a network's outputs, at N points."""

    value: jax.Array  # [N, outputs]
    first: jax.Array  # [INPUTS, N, outputs], by each input
    second: jax.Array  # [K, N, outputs], by each of the K inputs that were asked for


def init(seed: int, outputs: int, size: Size) -> Any:
    """Layers with Xavier's normal weights, and biases of 0."""
    widths = (INPUTS, *[size.width] * size.hidden, outputs)
    keys = jax.random.split(jax.random.key(seed), len(widths) - 1)
    draw = jax.nn.initializers.glorot_normal()
    return {
        f"layer_{n}": {"kernel": draw(key, shape), "bias": jnp.zeros(shape[1])}
        for n, (key, *shape) in enumerate(
            zip(keys, widths[:-1], widths[1:], strict=True)
        )
    }


def value(params: Any, points: jax.Array) -> jax.Array:
    """Outputs `[N, outputs]` at points `[N, INPUTS]`."""
    *hidden, last = (params[name] for name in sorted(params))
    for layer in hidden:
        points = jnp.tanh(product(points, layer["kernel"]) + layer["bias"][None, :])
    return product(points, last["kernel"]) + last["bias"][None, :]


def derivatives(params: Any, points: jax.Array, twice: tuple[int, ...]) -> Derivatives:
    """The same with derivatives, second ones by the inputs `twice`."""
    *hidden, last = (params[name] for name in sorted(params))
    directions = jnp.eye(INPUTS, dtype=points.dtype)[:, None, :]
    first = jnp.broadcast_to(directions, (INPUTS, *points.shape))
    rows = jnp.concatenate(
        [points[None], first, jnp.zeros((len(twice), *points.shape), points.dtype)]
    )
    for layer in hidden:
        before = product(rows, layer["kernel"])
        after = jnp.tanh(before[:1] + layer["bias"][None, None, :])
        slope = 1 - after**2
        first, second = before[1 : 1 + INPUTS], before[1 + INPUTS :]
        bent = slope * second - 2 * after * slope * first[jnp.array(twice)] ** 2
        rows = jnp.concatenate([after, slope * first, bent])
    rows = product(rows, last["kernel"])
    plain = rows[0] + last["bias"][None, :]
    return Derivatives(plain, rows[1 : 1 + INPUTS], rows[1 + INPUTS :])


def spread(
    rng: np.random.Generator, number: int, low: NDArray, high: NDArray
) -> NDArray[np.float64]:
    """A Latin hypercube: points `[number, D]` of which each interval has one a side."""
    places = [rng.permutation(number) + rng.random(number) for _ in low]
    return low + (high - low) * np.stack(places, axis=1) / number
