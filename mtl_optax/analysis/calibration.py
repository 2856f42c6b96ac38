"""Whether a classifier is right as often as it says: expected calibration error.

Conventions of `mtl_optax.analysis.metrics`: count, add batches, then read; NaN exactly
where nothing was counted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.analysis.metrics import added, mask_of, ratio, widen
from mtl_optax.core.arguments import checks


class CalibrationBins(NamedTuple):
    """What batches add up to, one entry a bin of confidence."""

    confidence: jax.Array  # [bins], sum of the confidences
    right: jax.Array  # [bins] int, how many predictions were right
    counted: jax.Array  # [bins] int, how many there were

    def __add__(self, other: Any) -> "CalibrationBins":
        """Of both batches."""
        return added(self, other)


def calibration_bins(
    confidences: ArrayLike,
    correct: ArrayLike,
    num_bins: int = 15,
    mask: ArrayLike | None = None,
) -> CalibrationBins:
    r"""Sorts predictions into bins of equal width by their confidence.

    Bin b of B holds the confidences in :math:`((b-1)/B,\ b/B]`; the first holds 0 too.

    Args:
      confidences: `[...]` in [0, 1], the probability of the predicted class.
      correct: `[...]` bool, whether the prediction was right.
      num_bins: B, a Python int.
      mask: `[...]` bool, or None.

    Returns:
      :class:`CalibrationBins` of `[B]`, to be added over batches with
      `jax.tree.map(jnp.add, ...)`; also what a reliability diagram is drawn from.

    Raises:
      ValueError: if the shapes differ, or `num_bins` is not a positive Python int.

    When not to use it: on logits; take the softmax first.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.calibration import calibration_bins
      >>> confidences, correct = jnp.array([0.3, 0.9, 0.8]), jnp.array([0, 1, 1])
      >>> calibration_bins(confidences, correct, num_bins=2).right
      Array([0, 2], dtype=int32)
    """
    num_bins = checks.static_int("num_bins", num_bins)
    confidences, correct = jnp.asarray(confidences), jnp.asarray(correct)
    if confidences.shape != correct.shape:
        raise ValueError(
            f"calibration_bins: confidences and correct must have one shape; got "
            f"{confidences.shape} and {correct.shape}. Of probabilities [..., C] take "
            "the maximum over classes."
        )
    valid = mask_of("calibration_bins", mask, correct.shape)
    sure = widen(confidences)
    cell = jnp.ceil(jnp.where(valid, sure, 0) * num_bins).astype(jnp.int32) - 1
    cell = jnp.clip(cell, 0, num_bins - 1)
    zeros = jnp.zeros(num_bins, jnp.result_type(int))
    return CalibrationBins(
        confidence=jnp.zeros(num_bins, sure.dtype)
        .at[cell]
        .add(jnp.where(valid, sure, 0)),
        right=zeros.at[cell].add((valid & correct.astype(bool)).astype(zeros.dtype)),
        counted=zeros.at[cell].add(valid.astype(zeros.dtype)),
    )


def expected_calibration_error(bins: CalibrationBins) -> jax.Array:
    r"""Mean gap between confidence and accuracy, over bins of confidence.

    .. math::
      \sum_{b=1}^B \frac{n_b}{n} \, |\mathrm{acc}_b - \mathrm{conf}_b|
      = \frac1n \sum_b \Big| \sum_{i \in b} c_i - \sum_{i \in b} p_i \Big|

    Args:
      bins: from :func:`calibration_bins`, summed over the whole split; leading axes
        (tasks, seeds), as `jax.vmap` makes them, stay.

    Returns:
      `[...]` in [0, 1], NaN where nothing was counted. Empty bins add nothing.

    When not to use it: to compare values of different `num_bins` or of small splits.
    The estimate is biased upwards, by about the standard error of each bin's accuracy,
    so that a perfectly calibrated model scores above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.calibration import (
      ...     calibration_bins,
      ...     expected_calibration_error,
      ... )
      >>> confidences, correct = jnp.array([0.5, 0.75, 1.0]), jnp.array([0, 1, 1])
      >>> expected_calibration_error(calibration_bins(confidences, correct)).round(4)
      Array(0.25, dtype=float32)

    References:
      Guo et al., `On Calibration of Modern Neural Networks
      <https://arxiv.org/abs/1706.04599>`_, 2017.
    """
    gaps = jnp.abs(widen(bins.right) - bins.confidence)
    return ratio(jnp.sum(gaps, axis=-1), jnp.sum(bins.counted, axis=-1))
