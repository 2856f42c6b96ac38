"""Angles between predicted and true surface normals, as NYUv2 tables report them.

Conventions of `mtl_optax.analysis.metrics`: count, add batches, then read; NaN exactly
where nothing was counted. A median is no sum, so angles are also counted in bins of
0.01 degrees, twice as fine as the tables' last digit needs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.analysis.metrics import (
    Average,
    added,
    average_of,
    mask_of,
    ratio,
    same_shape,
    widen,
)

THRESHOLDS = (11.25, 22.5, 30.0)  # degrees
_BINS_PER_DEGREE = 100


class AngleCounts(NamedTuple):
    """What batches of angles add up to; see :func:`angle_counts`."""

    average: Average  # of the angles in degrees
    below: jax.Array  # [3] int, how many angles are below each of THRESHOLDS
    histogram: jax.Array  # [18000] int, in bins of 0.01 degrees

    def __add__(self, other: Any) -> "AngleCounts":
        """Of both batches."""
        return added(self, other)


class NormalAngles(NamedTuple):
    """The five numbers of a table; see :func:`normal_angles`."""

    mean: jax.Array  # degrees
    median: jax.Array  # degrees
    within: jax.Array  # [3], shares below 11.25, 22.5 and 30 degrees


def angle_counts(
    predictions: ArrayLike, targets: ArrayLike, mask: ArrayLike | None = None
) -> AngleCounts:
    r"""Counts the angles between predicted and true normals.

    .. math::
      \theta = 2 \operatorname{atan2}(\|u - v\|, \|u + v\|), \quad
      u = \hat n / \|\hat n\|,\ v = n / \|n\|

    This is :math:`\arccos \langle u, v \rangle` without its two faults: it has no
    domain to leave (the cosine of a vector with itself may round to 1 + 1e-7), and it
    keeps its digits near 0, where float32 arccos has steps of 0.02 degrees.

    Args:
      predictions: `[..., 3]`, of any length; a zero vector counts as 90 degrees, since
        leaving it out would reward it.
      targets: `[..., 3]`; zero vectors mark invalid pixels and are left out. (LibMTL
        tests for a channel *sum* of 0, which also drops genuine normals such as
        (1, -1, 0).)
      mask: `[...]` bool, or None.

    Returns:
      :class:`AngleCounts`, to be added over batches with `jax.tree.map(jnp.add, ...)`
      and read by :func:`normal_angles`. A NaN prediction makes the mean NaN and counts
      as 180 degrees in the median and the shares.

    Raises:
      ValueError: if the shapes differ or the last axis is not 3.

    When not to use it: on channels-first arrays `[N, 3, H, W]`; move the axis first.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.normals import angle_counts
      >>> up, side = jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[0.0, 2.0, 0.0]])
      >>> angle_counts(side, up).average
      Average(total=Array(90., dtype=float32), counted=Array(1, dtype=int32))
    """
    predictions, targets = jnp.asarray(predictions), jnp.asarray(targets)
    same_normals("angle_counts", predictions, targets)
    valid = mask_of("angle_counts", mask, targets.shape[:-1])
    guessed, true = _unit(widen(predictions)), _unit(widen(targets))
    valid &= jnp.any(true != 0, axis=-1)
    angle = jnp.degrees(2 * jnp.arctan2(_norm(guessed - true), _norm(guessed + true)))
    worst = jnp.where(jnp.isnan(angle), 180, angle)
    integer = jnp.result_type(int)
    below = [jnp.sum(valid & (worst < x), dtype=integer) for x in THRESHOLDS]
    size = 180 * _BINS_PER_DEGREE
    cell = jnp.clip((worst * _BINS_PER_DEGREE).astype(jnp.int32), 0, size - 1)
    histogram = jnp.zeros(size, integer).at[cell].add(valid.astype(integer))
    return AngleCounts(average_of(angle, valid), jnp.stack(below), histogram)


def normal_angles(counts: AngleCounts) -> NormalAngles:
    r"""Mean and median angle, and the shares below 11.25, 22.5 and 30 degrees.

    Args:
      counts: from :func:`angle_counts`, summed over the whole split; leading axes
        (seeds), as `jax.vmap` makes them, stay.

    Returns:
      :class:`NormalAngles`. Mean and shares are exact; the median is read from bins and
      right within 0.005 degrees. All are NaN where nothing was counted.

    When not to use it: for medians finer than the bins; take `jnp.median` of all
    angles at once.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.normals import angle_counts, normal_angles
      >>> true = jnp.tile(jnp.array([0.0, 0.0, 1.0]), (3, 1))
      >>> tilt = jnp.radians(jnp.array([10.0, 20.0, 60.0]))
      >>> guess = jnp.stack([jnp.sin(tilt), 0 * tilt, jnp.cos(tilt)], axis=-1)
      >>> angles = normal_angles(angle_counts(guess, true))
      >>> print(f"{angles.mean:.1f} {angles.median:.1f}", angles.within.round(2))
      30.0 20.0 [0.33 0.67 0.67]

    References:
      Fouhey, `Evaluating Surface Normal Predictions
      <https://web.eecs.umich.edu/~fouhey/2016/evalSN/evalSN.html>`_, 2016, whose
      metrics, all but the root mean square, MTAN's code prints.
    """
    counted = counts.average.counted
    up_to = jnp.cumsum(counts.histogram, axis=-1)
    # The middle one of an odd number, the mean of the two middle ones of an even.
    middle = jnp.stack([(counted - 1) // 2, counted // 2], axis=-1)
    cells = jnp.sum(up_to[..., :, None] <= middle[..., None, :], axis=-2)
    median = (jnp.mean(widen(cells), axis=-1) + 0.5) / _BINS_PER_DEGREE
    return NormalAngles(
        mean=counts.average.mean,
        median=jnp.where(counted > 0, median, jnp.nan),
        within=ratio(counts.below, jnp.stack([counted] * len(THRESHOLDS), axis=-1)),
    )


def _norm(vectors: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(vectors**2, axis=-1))


def _unit(vectors: jax.Array) -> jax.Array:
    norm = _norm(vectors)[..., None]
    return jnp.where(norm == 0, 0, vectors / jnp.where(norm == 0, 1, norm))


def same_normals(name: str, predictions: jax.Array, targets: jax.Array) -> None:
    """Raises unless both are normals `[..., 3]` of one shape."""
    same_shape(name, predictions, targets)
    if targets.ndim == 0 or targets.shape[-1] != 3:
        raise ValueError(
            f"{name}: normals have 3 entries on the last axis; got shape "
            f"{targets.shape}. Move a channels-first axis with jnp.moveaxis(x, 1, -1)."
        )
