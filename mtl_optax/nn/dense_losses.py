"""Losses of dense prediction: segmentation, depth and surface normals, with masks.

Each is a mean over the valid pixels of the whole batch, computed in float32 (float64
under x64), and 0 with a gradient of 0 where no pixel is valid. Metrics for the same
masks are in `mtl_optax.analysis`. The mean is that of the batch which is handed over:
with a batch split over devices take `mtl_optax.masked_mean(..., axis_name=...)`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.analysis.metrics import same_shape, widen
from mtl_optax.analysis.normals import same_normals
from mtl_optax.core.masked_mean import masked_mean


def segmentation_loss(logits: Any, labels: Any, *, ignore_label: int = -1) -> jax.Array:
    """Cross-entropy of each pixel's class, over pixels that have one.

    Args:
      logits: `[..., C]`.
      labels: `[...]` int, a class or `ignore_label`.
      ignore_label: of pixels that do not count.

    Returns:
      A scalar, 0 without a valid pixel (PyTorch gives NaN there).

    Raises:
      ValueError: if labels do not have the shape of logits less its last axis.

    When not to use it: where classes are so rare that a mean over pixels overlooks
    them.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn import segmentation_loss
      >>> segmentation_loss(jnp.zeros((3, 4)), jnp.array([0, 3, -1])).round(3)
      Array(1.386, dtype=float32)
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"segmentation_loss: labels must have shape {logits.shape[:-1]}, that of "
            f"logits {logits.shape} without classes; got {labels.shape}."
        )
    valid = labels != ignore_label
    log_p = jax.nn.log_softmax(widen(logits))
    at = jnp.where(valid, labels, 0)[..., None]
    return masked_mean(-jnp.take_along_axis(log_p, at, axis=-1)[..., 0], valid)


def depth_loss(predictions: Any, depth: Any) -> jax.Array:
    """Mean absolute error over pixels whose depth is not 0, the mark of no depth.

    Args:
      predictions: of any shape, floating.
      depth: of the same shape.

    Returns:
      A scalar, 0 without a valid pixel.

    Raises:
      ValueError: if the shapes differ (`[B, H, W, 1]` against `[B, H, W]` would
        broadcast).

    When not to use it: where far and near should weigh alike; take logarithms first.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn import depth_loss
      >>> depth_loss(jnp.array([1.0, 9.0, 3.5]), jnp.array([2.0, 0.0, 4.0]))
      Array(0.75, dtype=float32)
    """
    predictions, depth = jnp.asarray(predictions), jnp.asarray(depth)
    same_shape("depth_loss", predictions, depth)
    return masked_mean(jnp.abs(widen(predictions) - widen(depth)), depth != 0)


def normal_loss(predictions: Any, normals: Any, *, eps: float = 1e-3) -> jax.Array:
    r"""One minus the mean cosine between predicted and true surface normals.

    .. math:: 1 - \mathrm{mean}_i \Big\langle \hat n_i / \sqrt{\|\hat n_i\|^2 +
      \epsilon^2},\ n_i \Big\rangle

    Args:
      predictions: `[..., 3]`, of any length.
      normals: `[..., 3]`, of length 1; zero vectors mark pixels that do not count.
      eps: of the length below which predictions no longer count as unit vectors. It
        bounds the gradient by 1/eps where a prediction is 0; the authors of EMA-Net
        have none, and NaN there.

    Returns:
      A scalar in [0, 2], 0 without a valid pixel.

    Raises:
      ValueError: if the shapes differ or the last axis is not 3.

    When not to use it: to report angles, see `mtl_optax.analysis.angle_counts`.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.nn import normal_loss
      >>> true = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
      >>> normal_loss(jnp.array([[0.0, 5.0, 5.0], [1.0, 0.0, 0.0]]), true).round(4)
      Array(0.2929, dtype=float32)
    """
    predictions, normals = jnp.asarray(predictions), jnp.asarray(normals)
    same_normals("normal_loss", predictions, normals)
    guessed, true = widen(predictions), widen(normals)
    length = jnp.sqrt(jnp.sum(guessed**2, axis=-1, keepdims=True) + eps**2)
    cosine = jnp.sum(guessed / length * true, axis=-1)
    return masked_mean(1 - cosine, jnp.any(true != 0, axis=-1))
