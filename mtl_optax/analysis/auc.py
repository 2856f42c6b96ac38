r"""Area under the ROC curve, streaming: counts in bins of the logit.

Conventions of `mtl_optax.analysis.metrics`: count, add batches, then read; NaN exactly
where nothing was counted.

The exact area needs all scores of a split at once. Counts do not; all that they lose is
the order within a bin. Bins are narrow near 0, where logits
are, and wider in proportion far from it: of width :math:`\sqrt{1+z^2}/2048` at z, up to
:math:`|z| = 11\,000`, beyond which all scores are one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.analysis.metrics import added, mask_of, ratio, same_shape, widen

FINENESS = 2048  # bins to a unit of asinh(logit)
BINS = 2 * 10 * FINENESS  # asinh(11 000) = 10


class AucCounts(NamedTuple):
    """What batches add up to: how many logits of each class fell into each bin."""

    positives: jax.Array  # [BINS] int
    negatives: jax.Array  # [BINS] int
    invalid: jax.Array  # int, how many of the logits were NaN

    def __add__(self, other: Any) -> "AucCounts":
        """Of both batches."""
        return added(self, other)


def auc_counts(
    logits: ArrayLike, targets: ArrayLike, mask: ArrayLike | None = None
) -> AucCounts:
    r"""Sorts logits into bins, those of positives and those of negatives apart.

    .. math:: b(z) = \lfloor 2048 \operatorname{asinh} z \rfloor

    Args:
      logits: `[...]` floating, the score of "yes" before the sigmoid.
      targets: `[...]` int or bool; 1 is "yes", 0 is "no", and others (-1) are ignored.
      mask: `[...]` bool, or None.

    Returns:
      :class:`AucCounts`, to be added over batches with `jax.tree.map(jnp.add, ...)`
      and over devices with `jax.lax.psum`: 320 KiB, int32 (int64 under x64).

    Raises:
      ValueError: if the shapes differ.

    Cost: a scatter of the batch into 82 thousand counts.

    When not to use it: on probabilities, whose bins near 0 and 1 are coarse; take the
    logit, or the logarithm: any increasing function of the score has the same area.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.auc import auc, auc_counts
      >>> counts = auc_counts(jnp.array([-1.0, 0.5, 2.0]), jnp.array([0, 1, 0]))
      >>> auc(counts)
      Array(0.5, dtype=float32)
    """
    logits, targets = jnp.asarray(logits), jnp.asarray(targets)
    same_shape("auc_counts", logits, targets)
    valid = mask_of("auc_counts", mask, targets.shape)
    valid &= (targets == 0) | (targets == 1)
    scores = widen(logits)
    broken = jnp.isnan(scores)
    cell = jnp.floor(jnp.arcsinh(jnp.where(broken, 0, scores)) * FINENESS)
    # Clipped before the cast: an infinite logit is no int.
    cell = jnp.clip(cell, -(BINS // 2), BINS // 2 - 1).astype(jnp.int32) + BINS // 2
    zeros = jnp.zeros(BINS, jnp.result_type(int))

    def count(these: jax.Array) -> jax.Array:
        return zeros.at[cell].add((these & valid & ~broken).astype(zeros.dtype))

    return AucCounts(
        positives=count(targets == 1),
        negatives=count(targets == 0),
        invalid=jnp.sum(valid & broken, dtype=zeros.dtype),
    )


def auc(counts: AucCounts) -> jax.Array:
    r"""Area under the ROC curve: how often a positive scores above a negative.

    .. math::
      \frac{1}{PN} \sum_b p_b \Big( \sum_{a < b} n_a + \tfrac12 n_b \Big)

    with :math:`p_b` of P positives and :math:`n_b` of N negatives in bin b: two scores
    of one bin are a tie and count half.

    Args:
      counts: from :func:`auc_counts`, summed over the whole split; leading axes (tasks,
        seeds), as `jax.vmap` makes them, stay.

    Returns:
      `[...]` in [0, 1]. NaN where a class is absent, and where a logit was NaN.

    Accuracy: within :func:`auc_error` of the exact area, whatever the scores. Normal
    scores of mean 0 and standard deviation 1 or more have a bound below 1e-4, and an
    error of a few 1e-6 (measured with 1000 to 1,000,000 rows). The bound is useless
    where many scores share a bin: a network that says nearly the same of all (within
    5e-4), or logits beyond 11 000. Sums of shares are rounded in float32, to about
    1e-6.

    When not to use it: for few positives among many, if what matters is the top of the
    list; and never as a mean of the areas of batches.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from mtl_optax.analysis.auc import auc, auc_counts
      >>> one = auc_counts(jnp.array([0.1, 0.4]), jnp.array([0, 0]))
      >>> other = auc_counts(jnp.array([0.35, 0.8]), jnp.array([1, 1]))
      >>> auc(one), auc(jax.tree.map(jnp.add, one, other))
      (Array(nan, dtype=float32), Array(0.75, dtype=float32))
    """
    positives, negatives = _shares(counts)
    # Below in whole numbers: a running sum in float32 would drift.
    below = jnp.cumsum(counts.negatives, axis=-1) - counts.negatives
    total = jnp.sum(counts.negatives, axis=-1, keepdims=True)
    area = jnp.sum(positives * (ratio(below, total) + negatives / 2), axis=-1)
    return jnp.where(counts.invalid > 0, jnp.nan, area)


def auc_error(counts: AucCounts) -> jax.Array:
    r"""How far :func:`auc` of these counts can be from the exact area, at most.

    .. math:: \frac{1}{2PN} \sum_b p_b n_b

    Pairs within a bin count half, and the truth is between none and all of them.

    Args:
      counts: from :func:`auc_counts`, summed over the whole split.

    Returns:
      `[...]` in [0, 1/2]; NaN where a class is absent.

    When not to use it: as the uncertainty of a small split, which is far larger.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.auc import auc_counts, auc_error
      >>> auc_error(auc_counts(jnp.array([3.0, 3.0]), jnp.array([0, 1])))
      Array(0.5, dtype=float32)
    """
    positives, negatives = _shares(counts)
    return jnp.sum(positives * negatives, axis=-1) / 2


def _shares(counts: AucCounts) -> tuple[jax.Array, jax.Array]:
    """Of a class's rows in each bin."""
    positives, negatives = counts.positives, counts.negatives
    return (
        ratio(positives, jnp.sum(positives, axis=-1, keepdims=True)),
        ratio(negatives, jnp.sum(negatives, axis=-1, keepdims=True)),
    )
