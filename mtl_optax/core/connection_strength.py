"""How strongly each channel of a shared layer reaches each task (Jeong & Yoon 2024)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def connection_strength(
    kernel: Any,
    scales: jax.Array | Sequence[jax.Array],
    variances: jax.Array | Sequence[jax.Array],
    *,
    eps: Any = 1e-5,
) -> jax.Array:
    r"""The share of each output channel in what a layer passes on to each task.

    .. math::
      S^t_p = \frac{\gamma_{tp}^2}{\sigma_{tp}^2 + \epsilon} \sum_{q} W_{qp}^2, \quad
      \hat S^t_p = S^t_p \Big/ \sum_{p'} S^t_{p'}

    for a shared layer W whose output p goes through a normalisation of each task's own,
    with scale :math:`\gamma` and running variance :math:`\sigma^2`, such as
    :class:`mtl_optax.nn.TaskBatchNorm`. Sums over q take in the positions of a
    convolution; the paper's factor for their number cancels.

    Args:
      kernel: W `[..., C]`, output channels last, as Flax keeps them: a convolution, or
        a dense layer `[inputs, C]`. Dense layers are our extension: the paper says that
        it can be extended to them, and gives no formula.
      scales: gamma, `[T, C]` or T arrays `[C]`.
      variances: running variances, likewise.
      eps: of the normalisation.

    Returns:
      Strengths `[T, C]`, which sum to 1 over the channels of each task (0 for a task
      whose scales are all 0).

    Raises:
      ValueError: if scales and variances are not `[T, C]` for the C of the kernel.

    Cost: one read of the kernel.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> kernel = jnp.array([[[[1.0, 0.0], [0.0, 2.0]]]])  # 1x1, two in, two out
      >>> scales = jnp.array([[1.0, 1.0], [2.0, 0.5]])
      >>> mtl.connection_strength(kernel, scales, jnp.ones((2, 2)))
      Array([[0.2, 0.8],
             [0.8, 0.2]], dtype=float32)
    """
    scale, variance = (_stacked(rows) for rows in (scales, variances))
    channels = jnp.shape(kernel)[-1:]
    if scale.ndim != 2 or scale.shape[1:] != channels or variance.shape != scale.shape:
        raise ValueError(
            "connection_strength: scales and variances must have one row a task and "
            f"one entry an output channel, the kernel's last axis: (T, "
            f"{channels[0] if channels else 'channels'}); got {scale.shape} and "
            f"{variance.shape} for a kernel of shape {jnp.shape(kernel)}."
        )
    wide = jnp.asarray(kernel, jnp.result_type(float))
    of_layer = jnp.sum(wide**2, axis=tuple(range(wide.ndim - 1)))
    strength = scale**2 / (variance + eps) * of_layer[None, :]
    total = jnp.sum(strength, axis=1, keepdims=True)
    return strength / jnp.where(total > 0, total, 1)


def _stacked(rows: jax.Array | Sequence[jax.Array]) -> jax.Array:
    stack = rows if isinstance(rows, jax.Array) else jnp.stack(list(rows))
    return stack.astype(jnp.result_type(float))
