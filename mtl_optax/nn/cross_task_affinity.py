"""The mathematics of cross-task affinity learning (CTAL), as functions of arrays.

K tasks have feature maps `[B, H, W, C]`; their P = HW positions are also written in a
row, `[B, P, C]`. References are in `mtl_optax.nn.CTAL`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

_TINY = 1e-24  # a squared length; shorter vectors have no direction


def affinity(features: Any, at: Any = None) -> jax.Array:
    r"""Cosines between the features of all positions q, and of some or all p.

    .. math:: S_{qp} = \langle x_q, x_p \rangle / (\|x_q\| \|x_p\|)

    Args:
      features: `[B, P, C]`.
      at: those of some positions, `[B, R, C]`, or None for all.

    Returns:
      `[B, P, R]`, in the dtype of `features`; symmetric where p are all. A position
      whose features are 0 has affinity 0 to all, with a gradient of 0.

    Cost: 2 B P R C FLOPs.

    Invariances: to positive factors of each position.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn.cross_task_affinity import affinity
      >>> affinity(jnp.array([[[2.0, 0.0], [3.0, 3.0], [0.0, 0.0]]])).round(2)
      Array([[[1.  , 0.71, 0.  ],
              [0.71, 1.  , 0.  ],
              [0.  , 0.  , 0.  ]]], dtype=float32)
    """
    unit = _unit(jnp.asarray(features))
    return jnp.einsum("bqc,bpc->bqp", unit, unit if at is None else _unit(at))


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
            total += _shifted(mixed, row - 1, column - 1)
    return total


def fused_affinity(
    features: Sequence[jax.Array],
    kernel: Any,
    bias: Any,
    at: Sequence[jax.Array] | None = None,
) -> jax.Array:
    """The affinity A that all tasks share: `affinity` of each task, and `fuse`.

    Args:
      features: of the K tasks, `[B, H, W, C]`.
      kernel: `[3, 3, K, R]`, see `fuse`.
      bias: `[R]`.
      at: features of the positions p that kernel and bias are for, `[B, R, C]` each, or
        None for all.

    Returns:
      `[B, P, R]`, q before p.
    """
    grid = (*features[0].shape[:3], -1)
    places = [None] * len(features) if at is None else at
    pairs = zip(features, places, strict=True)
    affinities = [affinity(_rows(x), p).reshape(grid) for x, p in pairs]
    return _rows(fuse(affinities, kernel, bias))


def diffuse(
    features: Sequence[jax.Array],
    values: Sequence[jax.Array],
    kernel: Any,
    bias: Any,
    *,
    checkpoint: int = 0,
) -> list[jax.Array]:
    r"""Values of each position, from those of all by the fused affinity.

    .. math:: D^k_p = \sum_q A_{qp} V^k_q

    Args:
      features: of the K tasks, `[B, H, W, C]`, which give A by `fused_affinity`.
      values: of the K tasks, `[B, H, W, C']`.
      kernel: `[3, 3, K, P]`, see `fuse`.
      bias: `[P]`.
      checkpoint: 0 stores the affinities for the backward pass; 1 computes them again
        there; n > 1, which must divide P, does so for P/n positions p after another,
        so that P² numbers are never held. The result is the same.

    Returns:
      For each task `[B, H, W, C']`.

    Cost: 4 B K P² C FLOPs, and 18 B K P² of `fuse`; a third more with checkpoints,
    forward and backward.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn.cross_task_affinity import diffuse
      >>> features = [jnp.array([[[[1.0], [1.0]]]])]
      >>> kernel = jnp.zeros((3, 3, 1, 2)).at[1, 1].set(1.0)  # A is S
      >>> diffuse(features, [jnp.array([[[[3.0], [5.0]]]])], kernel, jnp.zeros(2))
      [Array([[[[8.],
               [8.]]]], dtype=float32)]
    """
    kernel, bias = jnp.asarray(kernel), jnp.asarray(bias)
    flat = [_rows(v) for v in values]

    def part(at: Sequence[jax.Array], kernel: Any, bias: Any) -> list[jax.Array]:
        fused = fused_affinity(features, kernel, bias, at)
        return [jnp.einsum("bqp,bqc->bpc", fused, v) for v in flat]

    rows = [_rows(x) for x in features]
    if checkpoint <= 1:
        found = (jax.checkpoint(part) if checkpoint else part)(rows, kernel, bias)
    else:
        split = (
            [_parts(x, 1, checkpoint) for x in rows],
            _parts(kernel, 3, checkpoint),
            _parts(bias, 0, checkpoint),
        )
        parts = jax.lax.map(lambda x: jax.checkpoint(part)(*x), split)
        found = [jnp.moveaxis(x, 0, 1) for x in parts]
    return [x.reshape(v.shape) for x, v in zip(found, values, strict=True)]


def _rows(x: jax.Array) -> jax.Array:
    """`[B, P, C]` from `[B, H, W, C]`."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1, in the last axis; 0 where there is none."""
    wide = x.astype(jnp.result_type(float))
    squared = jnp.sum(wide**2, axis=-1, keepdims=True)
    some = squared > _TINY
    scale = jnp.where(some, jax.lax.rsqrt(jnp.where(some, squared, 1)), 0)
    return (wide * scale).astype(x.dtype)


def _parts(x: jax.Array, axis: int, count: int) -> jax.Array:
    """`x` with one axis split in `count` parts, which come first."""
    shape = (*x.shape[:axis], count, -1, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _shifted(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """The map whose pixel is that of `x` so many rows and columns on; 0 outside."""
    by = [(0, 0, 0), (-rows, rows, 0), (-columns, columns, 0), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), by)
