"""What `watch_conflicts` has seen, as means, spreads and percentiles."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.analysis.watch_conflicts import Stream


class Statistics(NamedTuple):
    """Of one measure over all measured steps."""

    mean: jax.Array  # [T, T], or [] of all pairs together
    sd: jax.Array  # the same, over n - 1
    percentiles: jax.Array  # [P, T, T], or [P]


class ConflictSummary(NamedTuple):
    """What `watch_conflicts` saw; tasks are in sorted order of names."""

    counts: jax.Array  # [T, T] int32, measurements of each pair
    cosine: Statistics
    magnitude: Statistics  # magnitude similarity, 1 for equal norms
    conflicting: jax.Array  # [T, T], share of measurements with a negative cosine


def conflict_summary(
    opt_state: Any,
    percentiles: tuple[float, ...] = (2.5, 50.0, 97.5),
    *,
    pooled: bool = False,
) -> ConflictSummary:
    """Means, spread and percentiles of the conflicts that a training has seen.

    Args:
      opt_state: state of a chain with one :func:`mtl_optax.watch_conflicts`.
      percentiles: P numbers from 0 to 100.
      pooled: all pairs of two different tasks as one sample, instead of each by itself.

    Returns:
      A named tuple: `counts`, how often each pair was measured; `conflicting`, the
      share of these with a negative cosine; `cosine` and `magnitude` (similarity, 1 for
      equal norms), which have `mean`, `sd` and `percentiles`. All are arrays `[T, T]`,
      tasks in sorted order of names (percentiles `[P, T, T]`), or with `pooled` scalars
      (`[P]`). Where nothing was measured all are 0, `counts` too. A percentile is
      interpolated within a bin of the histogram; means and the share that conflicts are
      exact.

    Raises:
      ValueError: if the state holds no `watch_conflicts`, or several; for percentiles
        outside of 0 to 100.

    Cost: some T x T x bins numbers; it may run inside the jitted step.

    When not to use it: on one step; :func:`mtl_optax.task_cosines` tells what the
    method saw in it.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.watch_conflicts(num_tasks=2)
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.5, 2.0]])}
      >>> params = {"w": jnp.zeros(2)}
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> summary = mtl.conflict_summary(state, pooled=True)
      >>> summary.cosine.mean.round(3), summary.conflicting
      (Array(-0.6, dtype=float32), Array(1., dtype=float32))
    """
    if not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(f"percentiles lie between 0 and 100; got {percentiles}.")
    names = "conflict_counts", "conflict_cosines", "conflict_magnitudes"
    counts, cosines, magnitudes = (_the_one(opt_state, name) for name in names)
    if pooled:
        above = jnp.triu(jnp.ones(counts.shape, jnp.int32), 1)
        cosines, magnitudes = (
            _pooled(x, counts * above) for x in (cosines, magnitudes)
        )
        counts = jnp.sum(counts * above)
    bins = cosines.histogram.shape[-1]
    negative = jnp.sum(cosines.histogram[..., : bins // 2], axis=-1)
    of = partial(_statistics, counts, jnp.asarray(percentiles, float))
    return ConflictSummary(
        counts,
        of(cosines, low=-1.0),
        of(magnitudes, low=0.0),
        negative / jnp.maximum(counts, 1),
    )


def _pooled(stream: Stream, counts: jax.Array) -> Stream:
    """All pairs as one, each as often as it was measured."""
    total = jnp.maximum(jnp.sum(counts), 1)
    mean = jnp.sum(counts * stream.mean) / total
    apart = counts * (stream.mean - mean) ** 2
    squares = jnp.sum(jnp.where(counts > 0, stream.squares, 0) + apart)
    pairs = (counts > 0)[:, :, None]
    histogram = jnp.sum(jnp.where(pairs, stream.histogram, 0), axis=(0, 1))
    return Stream(mean, squares, histogram)


def _statistics(
    counts: jax.Array, percentiles: jax.Array, stream: Stream, *, low: float
) -> Statistics:
    """Of histograms from `low` to 1."""
    bins = stream.histogram.shape[-1]
    reached = jnp.cumsum(stream.histogram, axis=-1)
    wanted = percentiles.reshape(-1, *(1,) * counts.ndim) / 100 * counts[None]
    full = reached[None] < wanted[..., None]  # bins that lie below
    last = jnp.minimum(jnp.sum(full, axis=-1), bins - 1)  # [P, ...]
    within = jnp.take_along_axis(stream.histogram[None], last[..., None], -1)[..., 0]
    before = jnp.take_along_axis(reached[None], last[..., None], -1)[..., 0] - within
    share = jnp.clip((wanted - before) / jnp.maximum(within, 1), 0, 1)
    value = low + (last + share) * (1 - low) / bins
    return Statistics(
        stream.mean,
        jnp.sqrt(stream.squares / jnp.maximum(counts - 1, 1)),
        jnp.where(counts > 0, value, 0),
    )


def _the_one(opt_state: Any, name: str) -> Any:
    found = optax.tree.get_all_with_path(opt_state, name)
    if len(found) != 1:
        raise ValueError(
            f"The optimizer state holds {len(found)} states of watch_conflicts, not "
            "one. Put mtl_optax.watch_conflicts(num_tasks) first in the chain; of "
            "several, pass the part of the state that belongs to one."
        )
    return found[0][1]
