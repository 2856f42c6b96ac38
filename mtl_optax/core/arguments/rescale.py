"""What CAGrad and methods of its kind divide their direction by, an argument."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks


def check_rescale(rescale: Any) -> None:
    """Raises for an int that is no choice; tracers pass."""
    if isinstance(rescale, int):
        checks.one_of("rescale", rescale, (0, 1, 2))


def divisor(rescale: Any, radius: jax.Array) -> jax.Array:
    """1 for 0, 1 + radius^2 for 1, 1 + radius for 2."""
    divisors = jnp.stack([jnp.ones_like(radius), 1 + radius**2, 1 + radius])
    return divisors[jnp.asarray(rescale, jnp.int32)]
