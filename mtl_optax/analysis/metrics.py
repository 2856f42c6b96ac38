r"""Metrics of predictions, in two steps: count over a batch, then read the counts.

**Batches.** What a first step returns (an :class:`Average`, a confusion matrix, angle
counts, calibration bins) is a pytree of sums. Sums of batches are the sums of the whole
split, whatever the batches' sizes and however few of their pixels are valid: add them
with `+` or `jax.tree.map(jnp.add, ...)`, across devices with `jax.lax.psum`. Averaging
the *metrics* of batches instead is a common error, which weighs a batch with one valid
pixel as much as a full one.

**No data.** One rule for all: counts are always finite, and a metric is NaN exactly
where nothing was counted. So an empty batch adds zeros and does no harm; a split
without one valid pixel says so with NaN instead of a perfect or a worst score; and a
class that occurs in neither targets nor predictions is left out of a mean over classes.

**Masks.** `mask` is a boolean array of the targets' shape, True where a target is
valid; None counts all. Entries that are masked out may hold anything, NaN included. An
error or an angle of NaN that *is* counted gives a mean of NaN.

Every function may be jitted, and mapped by `jax.vmap` over tasks or seeds.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.core.arguments import checks
from mtl_optax.core.masked_mean import masked_sum


class Average(NamedTuple):
    """A mean that is still a sum and a count, so that batches add up.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import Average, absolute_error
      >>> one = absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0]))
      >>> other = absolute_error(jnp.array([4.0]), jnp.array([4.0]))
      >>> (one + other).mean
      Array(1., dtype=float32)
    """

    total: jax.Array  # sum over what was counted, floating
    counted: jax.Array  # how many were, int

    @property
    def mean(self) -> jax.Array:
        """Total over count; NaN where nothing was counted."""
        return ratio(self.total, self.counted)

    def __add__(self, other: Any) -> "Average":
        """Of both batches; as tuples they would be joined end to end."""
        return added(self, other)


def accuracy(
    predictions: ArrayLike, targets: ArrayLike, mask: ArrayLike | None = None
) -> Average:
    r"""Share of the predicted labels that are right.

    .. math:: \frac1N \sum_{i \in \text{mask}} \mathbb{1}[\hat y_i = y_i]

    Args:
      predictions: `[...]` labels (not logits: take `argmax` first).
      targets: `[...]` labels. Labels for "ignore" count as wrong unless masked out,
        since -1 is a class in some data: pass `mask=targets >= 0`.
      mask: `[...]` bool, or None.

    Returns:
      :class:`Average` of scalars; its `mean` is in [0, 1], NaN without data.

    Raises:
      ValueError: if the shapes differ (`[N, 1]` against `[N]` would broadcast).

    When not to use it: for rare positives (CelebA attributes), where predicting "no"
    scores well: see :func:`f1_score`.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import accuracy
      >>> accuracy(jnp.array([1, 0, 2, 2]), jnp.array([1, 1, 2, 2])).mean
      Array(0.75, dtype=float32)
    """
    predictions, targets, valid = _valid("accuracy", predictions, targets, mask)
    return average_of(predictions == targets, valid)


def absolute_error(
    predictions: ArrayLike, targets: ArrayLike, mask: ArrayLike | None = None
) -> Average:
    r"""Mean absolute error over valid entries.

    .. math:: \frac1N \sum_{i \in \text{mask}} |\hat y_i - y_i|

    Args:
      predictions: `[...]`, floating.
      targets: `[...]`. For NYUv2 and Cityscapes depth, 0 means invalid: pass
        `mask=depth > 0`.
      mask: `[...]` bool, or None.

    Returns:
      :class:`Average` of scalars, summed in float32 (float64 under x64).

    Raises:
      ValueError: if the shapes differ.

    When not to use it: to match tables to the third digit without a look at their code.
    This weighs pixels alike (LibMTL); the CAGrad and Nash-MTL code averages the means
    of images.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import absolute_error
      >>> depth = jnp.array([2.0, 0.0, 4.0])
      >>> absolute_error(jnp.array([1.0, 9.0, 4.5]), depth, mask=depth > 0)
      Average(total=Array(1.5, dtype=float32), counted=Array(2, dtype=int32))
    """
    predictions, targets, valid = _valid("absolute_error", predictions, targets, mask)
    return average_of(jnp.abs(widen(predictions) - widen(targets)), valid)


def relative_error(
    predictions: ArrayLike,
    targets: ArrayLike,
    mask: ArrayLike | None = None,
    min_target: float = 1e-6,
) -> Average:
    r"""Mean of the absolute error over the target's size.

    .. math::
      \frac1N \sum_{i \in \text{mask},\ |y_i| > \epsilon} \frac{|\hat y_i - y_i|}{|y_i|}

    Args:
      predictions: `[...]`, floating.
      targets: `[...]`.
      mask: `[...]` bool, or None.
      min_target: the :math:`\epsilon` above; targets of at most this size are not
        counted. One pixel of depth 1e-30 would otherwise be the whole score. The
        default is a micrometre for depth in metres; check it for other units. 0 is the
        rule of the published code, which leaves out exact zeros only.

    Returns:
      :class:`Average` of scalars, summed in float32 (float64 under x64).

    Raises:
      ValueError: if the shapes differ, or `min_target` is negative.

    When not to use it: for targets that come near 0 by nature (normals, residuals).

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import relative_error
      >>> relative_error(jnp.array([1.0, 5.0, 3.0]), jnp.array([2.0, 4.0, 0.0])).mean
      Array(0.375, dtype=float32)
    """
    checks.at_least("min_target", min_target, 0)
    predictions, targets, valid = _valid("relative_error", predictions, targets, mask)
    error, size = jnp.abs(widen(predictions) - widen(targets)), jnp.abs(widen(targets))
    large = size > min_target
    # NaN targets stay in: a NaN that is counted shows.
    counted = valid & (large | jnp.isnan(size))
    return average_of(error / jnp.where(large, size, 1), counted)


def confusion_matrix(
    predictions: ArrayLike,
    targets: ArrayLike,
    num_classes: int,
    mask: ArrayLike | None = None,
) -> jax.Array:
    r"""How often each class was taken for each: counts, which add up over batches.

    .. math:: C_{ij} = \#\{k \in \text{mask}: y_k = i,\ \hat y_k = j\}

    Args:
      predictions: `[...]` integer labels in 0 .. C-1, any integer dtype.
      targets: `[...]` integer labels; those outside 0 .. C-1 (-1, 255) are ignored.
      num_classes: C, a Python int.
      mask: `[...]` bool, or None.

    Returns:
      `[C, C]` counts, true class first, int32 (int64 under x64): exact up to 2^31 - 1
      pixels of one kind, where float32 would stop counting at 2^24. A prediction
      outside 0 .. C-1 has no column: that pixel is left out, as in scikit-learn.

    Raises:
      ValueError: if the shapes differ, labels are not integers, or `num_classes` is
        not a positive Python int.

    When not to use it: with thousands of classes, where only the diagonal is wanted:
    :func:`accuracy` needs no C x C counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import confusion_matrix
      >>> confusion_matrix(jnp.array([0, 1, 1, 0]), jnp.array([0, 0, 1, -1]), 2)
      Array([[1, 1],
             [0, 1]], dtype=int32)
    """
    num_classes = checks.static_int("num_classes", num_classes)
    predictions, targets, valid = _valid("confusion_matrix", predictions, targets, mask)
    for name, labels in (("predictions", predictions), ("targets", targets)):
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                f"confusion_matrix: {name} must be integer labels; got {labels.dtype}. "
                "Take jnp.argmax of logits, or cast a boolean or rounded array."
            )
    # Widened first: 12 * 13 does not fit the uint8 that labels are often stored in.
    guessed, true = predictions.astype(jnp.int32), targets.astype(jnp.int32)
    for labels in (guessed, true):
        valid &= (labels >= 0) & (labels < num_classes)
    cell = jnp.where(valid, true * num_classes + guessed, 0)
    counts = jnp.zeros(num_classes**2, jnp.result_type(int))
    counts = counts.at[cell].add(valid.astype(counts.dtype))
    return counts.reshape(num_classes, num_classes)


def pixel_accuracy(confusion: ArrayLike) -> jax.Array:
    r"""Share of right pixels, from a confusion matrix.

    .. math:: \sum_i C_{ii} \,/\, \sum_{ij} C_{ij}

    Args:
      confusion: `[..., C, C]`, summed over the whole split.

    Returns:
      `[...]` in [0, 1]; NaN where the matrix is zero.

    Raises:
      ValueError: if the matrix is not square.

    When not to use it: where one class (road, wall) covers most pixels:
    :func:`mean_iou`.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import pixel_accuracy
      >>> pixel_accuracy(jnp.array([[3, 1], [0, 4]]))
      Array(0.875, dtype=float32)
    """
    right, true, _ = _margins("pixel_accuracy", confusion)
    return ratio(right.sum(axis=-1), true.sum(axis=-1))


def mean_iou(confusion: ArrayLike) -> jax.Array:
    r"""Intersection over union, averaged over the classes that occur.

    .. math::
      \operatorname*{mean}_{i:\ U_i > 0} \frac{C_{ii}}{U_i}, \quad
      U_i = \sum_j C_{ij} + \sum_j C_{ji} - C_{ii}

    Args:
      confusion: `[..., C, C]`, summed over the whole split.

    Returns:
      `[...]` in [0, 1]. A class that is in neither targets nor predictions is left out
      (in LibMTL its 0/0 makes the mean NaN); one that is predicted and never true
      counts as 0. NaN where the matrix is zero.

    Raises:
      ValueError: if the matrix is not square.

    When not to use it: batch by batch, to average later: rare classes then count
    differently. Sum the matrices first.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import mean_iou
      >>> mean_iou(jnp.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).round(4)
      Array(0.775, dtype=float32)
    """
    right, true, guessed = _margins("mean_iou", confusion)
    return _mean_over_classes(right, true + guessed - right)


def f1_score(
    confusion: ArrayLike, average: Literal["binary", "macro"] = "macro"
) -> jax.Array:
    r"""Harmonic mean of precision and recall.

    .. math::
      F_i = \frac{2 \, C_{ii}}{\sum_j C_{ij} + \sum_j C_{ji}}

    Args:
      confusion: `[..., C, C]`, summed over the whole split; `[40, 2, 2]`, made under
        `jax.vmap`, for the 40 attributes of CelebA.
      average: `"macro"`, the mean over the classes that are in targets or predictions;
        `"binary"`, class 1 of two.

    Returns:
      `[...]` in [0, 1]. NaN where no class (binary: no positive, neither true nor
      predicted) was counted; scikit-learn warns there and returns 0.

    Raises:
      ValueError: for another `average`, a matrix that is not square, or `"binary"` with
        another number of classes than 2.

    When not to use it: across papers without a look at the averaging: micro F1 is
    plain accuracy, and the mean of per-attribute binary F1 is no macro F1.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.metrics import f1_score
      >>> f1_score(jnp.array([[5, 1], [1, 3]]), average="binary")
      Array(0.75, dtype=float32)
    """
    checks.one_of("average", average, ("binary", "macro"))
    right, true, guessed = _margins("f1_score", confusion)
    if average == "macro":
        return _mean_over_classes(2 * right, true + guessed)
    if right.shape[-1] != 2:
        raise ValueError(
            f"f1_score: average='binary' is for 2 classes; got {right.shape[-1]}. Use "
            "average='macro'."
        )
    return ratio(2 * right[..., 1], true[..., 1] + guessed[..., 1])


def added(one: Any, other: Any) -> Any:
    """The counts of two batches as those of both."""
    if type(one) is not type(other):
        raise TypeError(
            f"counts of one kind add up; got {type(one).__name__} and "
            f"{type(other).__name__}."
        )
    return jax.tree.map(jnp.add, one, other)


def ratio(total: jax.Array, counted: jax.Array) -> jax.Array:
    """Total over count in floating point; NaN where the count is 0."""
    some = counted > 0
    return jnp.where(some, widen(total) / jnp.where(some, counted, 1), jnp.nan)


def average_of(values: jax.Array, valid: jax.Array) -> Average:
    """The sum of the valid values, and their number."""
    total, count = masked_sum(widen(values), valid)
    return Average(total, count.astype(jnp.result_type(int)))


def widen(values: jax.Array) -> jax.Array:
    """In float32 (float64 under x64), in which sums are formed."""
    return values.astype(jnp.result_type(float))


def mask_of(name: str, mask: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    """The mask as a boolean array of this shape; all True for None."""
    if mask is None:
        return jnp.ones(shape, bool)
    valid = jnp.asarray(mask)
    if valid.shape != shape:
        raise ValueError(f"{name}: mask must have shape {shape}; got {valid.shape}.")
    return valid.astype(bool)


def same_shape(name: str, predictions: jax.Array, targets: jax.Array) -> None:
    """Raises unless predictions and targets match without broadcasting."""
    if predictions.shape != targets.shape:
        raise ValueError(
            f"{name}: predictions and targets must have one shape; got "
            f"{predictions.shape} and {targets.shape}. Reshape one: broadcasting "
            "would compare every prediction with every target."
        )


def _valid(
    name: str, predictions: ArrayLike, targets: ArrayLike, mask: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    predictions, targets = jnp.asarray(predictions), jnp.asarray(targets)
    same_shape(name, predictions, targets)
    return predictions, targets, mask_of(name, mask, targets.shape)


def _margins(name: str, confusion: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    counts = jnp.asarray(confusion)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError(
            f"{name}: takes a confusion matrix [..., C, C]; got shape {counts.shape}. "
            "Make it with confusion_matrix(predictions, targets, num_classes)."
        )
    # Sums of margins may pass 2^31 where counts do not.
    counts = widen(counts)
    right = jnp.diagonal(counts, axis1=-2, axis2=-1)
    return right, counts.sum(axis=-1), counts.sum(axis=-2)


def _mean_over_classes(part: jax.Array, whole: jax.Array) -> jax.Array:
    occurs = whole > 0
    shares = jnp.where(occurs, part / jnp.where(occurs, whole, 1), 0)
    return ratio(shares.sum(axis=-1), occurs.sum(axis=-1))
