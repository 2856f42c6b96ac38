"""The mean of a loss over the examples whose label is known."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def masked_mean(values: Any, known: Any, axis_name: Any = None) -> jax.Array:
    r"""Mean of the values that are known, 0 where none is.

    .. math:: \frac{\sum_i k_i v_i}{\max(1, \sum_i k_i)}

    Args:
      values: losses of single examples, an array of any shape.
      known: bool, which of them count, of the same shape.
      axis_name: the mapped data axis, or axes, over which the batch is split, as in
        :func:`mtl_optax.task_grads`; the sums are then those of the whole batch.

    Returns:
      A scalar, in the dtype of the values (float32 of integers), summed in float32 or
      wider. Unknown values may be NaN or infinite: neither the mean nor its gradient
      with respect to the values sees them. (What computes an unknown value must have a
      finite derivative all the same: zero times infinity is NaN.)

      With `axis_name` it stands for a mean over the device's own part of the batch:
      averaged over the axis, as `task_grads(axis_name=...)` averages losses and
      gradients, value and gradient are those of the whole batch. The value is the same
      on every device before that; the gradient of it is the device's own part, times
      the number of devices.

    Raises:
      ValueError: for `known` that is not bool, or not of the shape of the values: a
        mask of examples `[B]` does not say how it masks `[B, ...]`.

    Cost: two sums of the values, in one read of them; with `axis_name` all-reduces of
    two numbers.

    When not to use it: where every label is known, `jnp.mean` is the same. A mean over
    the device's part of the batch, which this is without `axis_name` under
    `jax.shard_map`, is wrong where devices know different numbers of labels: few labels
    on one device weigh as much as many on another.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> losses = jnp.array([1.0, jnp.nan, 3.0])
      >>> mtl.masked_mean(losses, jnp.array([True, False, True]))
      Array(2., dtype=float32)

    References:
      `findings/xla_cpu_one_hot_losses.sh`, for why there are two sums.
    """
    values, known = jnp.asarray(values), jnp.asarray(known)
    _check(values, known)
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        values = values.astype(jnp.float32)
    total, count = masked_sum(values, known)
    if axis_name is None:
        return (total / jnp.maximum(count, 1)).astype(values.dtype)
    everywhere = jnp.maximum(lax.psum(count, axis_name), 1)
    share = total * (lax.psum(1, axis_name) / everywhere)
    # The value of all, with the derivative of this device's share: a derivative of
    # psum itself has the factor of the devices in some modes of JAX and not in others.
    value = lax.stop_gradient(lax.psum(total, axis_name) / everywhere)
    return (value + (share - lax.stop_gradient(share))).astype(values.dtype)


def masked_sum(values: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of the values that are known, float32 or wider, and their number."""
    wide = jnp.promote_types(values.dtype, jnp.float32)
    count = jnp.sum(known, dtype=jnp.int32)
    # The plain sum beside the masked one is for jaxlib 0.10 on CPUs: where the masked
    # sum alone uses one-hot cross entropies of many vmapped lanes, they come out wrong.
    # The barrier keeps it in the program where the mask is a constant.
    whole = lax.optimization_barrier(count == known.size)
    plain = jnp.sum(values, dtype=wide)
    masked = jnp.sum(jnp.where(known, values, 0), dtype=wide)
    return jnp.where(whole, plain, masked), count


def _check(values: jax.Array, known: jax.Array) -> None:
    if known.dtype != jnp.bool_:
        raise ValueError(
            f"masked_mean: known must be bool, True where the label is known; got "
            f"dtype {known.dtype}. Compare it, for example known > 0."
        )
    if known.shape != values.shape:
        raise ValueError(
            f"masked_mean: known must have the shape of the values, {values.shape}; "
            f"got {known.shape}. Reduce each example's values first, for example "
            "jnp.mean(values, axis=1), or say what the mask is of: "
            "jnp.broadcast_to(known[:, None], values.shape)."
        )
