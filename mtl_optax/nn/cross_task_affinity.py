"""The mathematics of cross-task affinity learning (CTAL), as functions of arrays.

K tasks have feature maps `[B, H, W, C]`; their P = HW positions are also written in a
row, `[B, P, C]`. References are in `mtl_optax.nn.CTAL`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

_TINY = 1e-24  # a squared length; shorter vectors have no direction


def affinity(features: Any) -> jax.Array:
    r"""Cosines between the features of all pairs of positions.

    .. math:: S_{pq} = \langle x_p, x_q \rangle / (\|x_p\| \|x_q\|)

    Args:
      features: `[B, P, C]`.

    Returns:
      `[B, P, P]`, symmetric, in the dtype of `features`. A position whose features are
      0 has affinity 0 to all, with a gradient of 0.

    Cost: 2 B P² C FLOPs.

    Invariances: to positive factors of each position.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn.cross_task_affinity import affinity
      >>> affinity(jnp.array([[[2.0, 0.0], [3.0, 3.0], [0.0, 0.0]]])).round(2)
      Array([[[1.  , 0.71, 0.  ],
              [0.71, 1.  , 0.  ],
              [0.  , 0.  , 0.  ]]], dtype=float32)
    """
    x = jnp.asarray(features)
    squared = jnp.sum(jnp.square(x.astype(jnp.result_type(float))), -1, keepdims=True)
    some = squared > _TINY
    scale = jnp.where(some, jax.lax.rsqrt(jnp.where(some, squared, 1)), 0)
    unit = (x * scale).astype(x.dtype)
    return jnp.einsum("bpc,bqc->bpq", unit, unit)


def fuse(affinities: Sequence[jax.Array], kernel: Any, bias: Any) -> jax.Array:
    r"""One affinity of all tasks: a 3×3 convolution over q, for each p apart.

    .. math:: A_{qp} = b_p + \sum_k \sum_\delta W_{\delta k p} \, S^k_{q + \delta, p}

    with shifts :math:`\delta` over 3×3 neighbours on the grid, zero outside. It is the
    convolution with P groups of K channels each, those of one position p, on the tasks'
    maps interleaved; no channel sees another position p.

    Args:
      affinities: of the K tasks, `[B, H, W, P]`: the position q on the grid, p in the
        channels.
      kernel: `[3, 3, K, P]`, of that grouped convolution in the form HWIO.
      bias: `[P]`.

    Returns:
      `[B, H, W, P]`, in the dtype of the affinities; neither softmax nor scaling.

    Cost: 18 B K P² FLOPs. Tasks are summed first, then nine sums are shifted: on a CPU,
    forward and backward, that took 1.2 ms for B = 4, P = 64, K = 3, and XLA's grouped
    convolution 630 ms.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn.cross_task_affinity import fuse
      >>> maps = [jnp.ones((1, 2, 2, 4)), jnp.zeros((1, 2, 2, 4))]
      >>> fuse(maps, jnp.ones((3, 3, 2, 4)), jnp.zeros(4))[0, :, :, 0]  # 4 neighbours
      Array([[4., 4.],
             [4., 4.]], dtype=float32)
    """
    dtype = affinities[0].dtype
    kernel, bias = jnp.asarray(kernel, dtype), jnp.asarray(bias, dtype)
    total = jnp.broadcast_to(bias, affinities[0].shape)
    for row in range(3):
        for column in range(3):
            weights = kernel[row, column]
            mixed = sum(
                s * weights[k][None, None, None] for k, s in enumerate(affinities)
            )
            total += _shifted(mixed, row - 1, column - 1)  # type: ignore[arg-type]
    return total


def diffuse(fused: Any, values: Any) -> jax.Array:
    r"""Values of each position, from those of all by the fused affinity.

    .. math:: D_p = \sum_q A_{qp} V_q

    Args:
      fused: `[B, P, P]`, q before p.
      values: `[B, P, C]`.

    Returns:
      `[B, P, C]`.

    Cost: 2 B P² C FLOPs.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn.cross_task_affinity import diffuse
      >>> fused = jnp.array([[[0.0, 1.0], [0.0, 2.0]]])
      >>> diffuse(fused, jnp.array([[[3.0], [5.0]]]))[0, :, 0]
      Array([ 0., 13.], dtype=float32)
    """
    return jnp.einsum("bqp,bqc->bpc", fused, values)


def _shifted(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """The map whose pixel is that of `x` so many rows and columns on; 0 outside."""
    by = [(0, 0, 0), (-rows, rows, 0), (-columns, columns, 0), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), by)
