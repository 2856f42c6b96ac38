"""The gradient of a convolution's kernel for one sample, as one product a tap.

For a batch it is one convolution; for samples one by one it would be as many, which
XLA runs two to four times slower on CPUs than a product for each place in the kernel.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.per_sample.states import shape_of

_MOST = 25  # places, of which each is written out


def has_taps(eqn: Any) -> bool:
    """Whether the equation is such a gradient: cotangents slide over inputs."""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    ungrouped = params["batch_group_count"] == 1 == params["feature_group_count"]
    places = 1
    for axis in numbers.out_spec[2:]:
        places *= shape_of(eqn.outvars[0])[axis]
    return ungrouped and set(params["lhs_dilation"]) <= {1} and places <= _MOST


def by_taps(eqn: Any, inputs: jax.Array, cotangents: jax.Array) -> jax.Array:
    """The result of the convolution."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    x = inputs.transpose(numbers.lhs_spec)  # [m, B, *space]
    d = cotangents.transpose(numbers.rhs_spec)  # [n, B, *space]
    low_high = [(0, 0, 0)] * 2 + [(*pair, 0) for pair in params["padding"]]
    x = lax.pad(x, jnp.zeros((), x.dtype), low_high)
    steps = params["rhs_dilation"]
    places = [shape_of(eqn.outvars[0])[axis] for axis in numbers.out_spec[2:]]
    contracted = tuple(range(1, x.ndim))
    products = []
    for place in itertools.product(*map(range, places)):
        moves = zip(place, params["window_strides"], strict=True)
        starts = [at * stride for at, stride in moves]
        ends = [
            start + (count - 1) * step + 1
            for start, count, step in zip(starts, d.shape[2:], steps, strict=True)
        ]
        here = lax.slice(x, (0, 0, *starts), (*x.shape[:2], *ends), (1, 1, *steps))
        products.append(
            lax.dot_general(
                here,
                d,
                ((contracted, contracted), ((), ())),
                precision=params["precision"],
                preferred_element_type=params["preferred_element_type"],
            )
        )
    out = jnp.stack(products, axis=-1).reshape(*products[0].shape, *places)
    order = [numbers.out_spec.index(axis) for axis in range(out.ndim)]
    return out.transpose(order)  # from [m, n, *space]
