"""What methods share that turn the losses into one number, a scalarisation.

Their weights are its derivative with respect to the losses, in closed form, which takes
logarithms and ratios that stay finite, softmax, and directions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.solvers.linalg import noise_floor
from mtl_optax.core.weighting import Weighting, no_state


def of_losses(
    method: str, weigh: Callable[[jax.Array, jax.Array], jax.Array], **per_task: Any
) -> Weighting:
    """The weighting without state whose weights are `weigh(losses, active)`, all `[T]`.

    `method` is the name for the error where the losses are missing, `per_task` what
    must be None or `[T]`.
    """

    def update(
        gramian: None,
        state: tuple[()],
        *,
        losses: jax.Array | None,
        active: jax.Array,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del gramian, extra
        return weigh(checks.required(method, "losses", losses), active), state

    return Weighting(no_state(**per_task), update, uses_gramian=False)


def positive(values: jax.Array) -> jax.Array:
    """Clips to where squares, inverses and ratios of two values are finite, above 0.

    That is 1e-19 to 9e18 in float32, 1e-154 to 7e153 in float64.
    """
    low = float(jnp.finfo(values.dtype).tiny) ** 0.5
    return jnp.clip(values, low, 1 / low)


def inverse(values: jax.Array) -> jax.Array:
    """One over what is above 0, with the bounds of `positive`; 0 for the rest."""
    return jnp.where(values > 0, 1 / positive(values), 0)


def above(losses: jax.Array, reference: Any) -> jax.Array:
    """Losses less their `reference` `[T]`, or less 0 for None."""
    if reference is None:
        return losses
    return losses - checks.task_vector("reference", reference, losses.shape[0])


def softmax_among(
    values: jax.Array, active: jax.Array, temperature: Any = 1.0
) -> jax.Array:
    """Softmax of `values / temperature` over the active tasks, 0 for the others.

    At temperature 0 the largest share equally. Without an active task all are 0.
    """
    largest = jnp.max(values, initial=-jnp.inf, where=active)
    # Compared, not subtracted: where `values` are products, the compiler may subtract
    # before it rounds them, and would find none as large as the largest.
    less = active & (values < largest)
    # Subtracted before the division, which may then overflow to -inf at will.
    tiny = jnp.finfo(values.dtype).tiny
    below = jnp.where(less, jnp.minimum(values - largest, -tiny), -tiny)
    share = jnp.where(less, jnp.exp(below / temperature), 1)
    share = jnp.where(active, share, 0)
    return share / jnp.maximum(jnp.sum(share), 1)


def unit(vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The vector divided by its length, and the length; zero stays zero.

    What is infinite counts as the largest number whose inverse is one.
    """
    tiny = float(jnp.finfo(vector.dtype).tiny)
    vector = jnp.clip(vector, -1 / tiny, 1 / tiny)
    size = jnp.max(jnp.abs(vector))
    # Divided twice, since what can be represented cannot always be squared.
    scaled = vector / jnp.where(size >= tiny, size, 1)
    length = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / jnp.where(length > 0, length, 1), size * length


def away_from(axis: jax.Array, vector: jax.Array) -> jax.Array:
    """The part of a unit vector perpendicular to the unit vector `axis`.

    Exactly zero where it is within rounding of that.
    """
    part = vector - jnp.sum(axis * vector) * axis
    noise = noise_floor(vector.shape[0], vector.dtype)
    return jnp.where(jnp.sum(part**2) <= noise**2, 0, part)
