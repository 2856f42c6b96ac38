"""Measures of a set of losses: which are on the front, how much it dominates, how even.

Pure functions of arrays; rows are points, columns tasks, and lower is better. A row
with a NaN counts as no point. `mtl_optax.pareto_front` trains such a set.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_optax.core.arguments.checks import static_int
from mtl_optax.core.trees.replicated import whole

Array = jax.Array


def pareto_mask(losses: Any) -> Array:
    r"""Which points no other point dominates.

    .. math::
      i \text{ is kept} \iff \nexists j: \; L_j \le L_i \text{ in every task and } <
      \text{ in one}

    Args:
      losses: `[N, T]`.

    Returns:
      `[N]` bool. Equal points do not dominate one another: all or none are kept. A row
      with a NaN is not kept, and dominates nothing.

    Raises:
      ValueError: for losses that are not `[N, T]`.

    Cost: T comparisons of N x N pairs.

    When not to use it: on noisy losses, to say that one run is better than another: a
    difference of any size counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.pareto import pareto_mask
      >>> pareto_mask(jnp.array([[1.0, 3.0], [2.0, 1.0], [2.0, 2.0], [1.0, 3.0]]))
      Array([ True,  True, False,  True], dtype=bool)
    """
    losses = _points(losses)
    known = ~jnp.any(jnp.isnan(losses), axis=1)
    as_good = jnp.ones((losses.shape[0],) * 2, bool)  # [j, i]: j is, as i
    better = jnp.zeros_like(as_good)
    for each in losses.T:
        as_good &= each[:, None] <= each[None, :]
        better |= each[:, None] < each[None, :]
    dominated = jnp.any(as_good & better & known[:, None], axis=0)
    return known & ~dominated


def hypervolume(losses: Any, reference: Any) -> Array:
    r"""Volume that the points dominate, up to a reference point: exact.

    .. math::
      \text{vol} \bigcup_i \, [L_{i1}, z_1] \times \dots \times [L_{iT}, z_T]

    The one number that falls short for a front that is not reached, not complete or not
    even. Points that do not beat the reference in every task add nothing.

    Args:
      losses: `[N, T]`.
      reference: z, `[T]`, the point that all are to beat; the same for all fronts that
        are compared. May be a tracer.

    Returns:
      A scalar, at least 0; infinite where a loss that counts, or the reference, is.

    Raises:
      ValueError: for losses that are not `[N, T]`, or a reference that is not `[T]`.

    Cost: a sort for two tasks; for T the order of N^(T-1) numbers, in memory of N.

    When not to use it: with many tasks; or where losses have no common scale, since the
    volume weighs a unit of one by the ranges of the others: divide them first.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.pareto import hypervolume
      >>> hypervolume(jnp.array([[1.0, 2.0], [2.0, 1.0], [4.0, 0.0]]), [3.0, 3.0])
      Array(3., dtype=float32)

    References:
      Zitzler and Thiele, `Multiobjective Evolutionary Algorithms: A Comparative Case
      Study and the Strength Pareto Approach <https://doi.org/10.1109/4235.797969>`_,
      1999.
    """
    losses = _points(losses)
    reference = jnp.asarray(reference, losses.dtype)
    if reference.shape != losses.shape[1:]:
        raise ValueError(
            f"reference must have one entry a task, shape {losses.shape[1:]}, as the "
            f"losses {losses.shape} have; got shape {reference.shape}."
        )
    gains = reference[None, :] - losses
    beats = jnp.all(gains > 0, axis=1)  # never with a NaN
    return _volume(jnp.where(beats[:, None], gains, 0))


def _volume(gains: Array) -> Array:
    """Of the union of the boxes between 0 and each row, none of them negative."""
    if gains.shape[1] == 1:
        return jnp.max(gains, initial=0)
    gains = gains[jnp.argsort(-gains[:, -1])]
    last, others = gains[:, -1], gains[:, :-1]
    if gains.shape[1] == 2:
        highest = jax.lax.cummax(others[:, 0])
        return _sum_of_products(jnp.diff(highest, prepend=0), last)
    # Slabs between one height of the last and the next: under all that are as high.
    thickness = last - jnp.append(last[1:], 0)
    index = jnp.arange(len(last))

    def slab(k: Array) -> Array:
        return _volume(jnp.where((index <= k)[:, None], others, 0))

    return _sum_of_products(thickness, jax.lax.map(slab, index))


def _sum_of_products(sides: Array, areas: Array) -> Array:
    """A side of zero has no volume, nor has one between two infinite heights."""
    return jnp.sum(jnp.where(sides > 0, sides * areas, 0))


def spacing(losses: Any, mask: Any = None) -> Array:
    r"""Schott's spacing: how unlike the distances between neighbours are.

    .. math::
      S = \sqrt{\frac{1}{n - 1} \sum_i (\bar d - d_i)^2}, \quad
      d_i = \min_{j \ne i} \sum_t |L_{it} - L_{jt}|

    Args:
      losses: `[N, T]`.
      mask: `[N]` bool, which points count, for example `pareto_mask(losses)`; None is
        all. Rows that are not finite never do.

    Returns:
      A scalar: 0 for even distances, and for fewer than three points.

    Raises:
      ValueError: for losses that are not `[N, T]`, or a mask that is not `[N]`.

    Cost: T differences of N x N pairs.

    When not to use it: alone. Points that all coincide, or of which each has a twin,
    have spacing 0, and so has a small part of a front: read it beside the hypervolume.

    Example:
      >>> import jax.numpy as jnp
      >>> from mtl_optax.analysis.pareto import spacing
      >>> spacing(jnp.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0]])).round(4)
      Array(1.1547, dtype=float32)

    References:
      Schott, Fault Tolerant Design Using Single and Multicriteria Genetic Algorithm
      Optimization, MIT, 1995.
    """
    losses = _points(losses)
    counts = jnp.all(jnp.isfinite(losses), axis=1)
    if mask is not None:
        if jnp.shape(mask) != counts.shape:
            raise ValueError(
                f"mask must have one entry a point, shape {counts.shape}; got shape "
                f"{jnp.shape(mask)}."
            )
        counts &= jnp.asarray(mask, bool)
    points = jnp.where(counts[:, None], losses, 0)
    apart = sum(jnp.abs(each[:, None] - each[None, :]) for each in points.T)
    pairs = counts[:, None] & counts[None, :] & ~jnp.eye(len(points), dtype=bool)
    nearest = jnp.min(jnp.where(pairs, apart, jnp.inf), axis=1)
    number = jnp.sum(counts)
    enough = number > 1
    nearest = jnp.where(counts & enough, nearest, 0)
    mean = jnp.sum(nearest) / jnp.maximum(number, 1)
    square = jnp.sum(jnp.where(counts, (nearest - mean) ** 2, 0))
    return jnp.where(enough, jnp.sqrt(square / jnp.maximum(number - 1, 1)), 0)


def simplex_lattice(num_tasks: int, divisions: int) -> Array:
    r"""Preferences spread evenly over the simplex (Das and Dennis).

    .. math::
      \{ k / m : k \in \mathbb{N}_0^T, \; \textstyle\sum_t k_t = m \}, \quad
      N = \binom{m + T - 1}{T - 1}

    Args:
      num_tasks: T, a Python int.
      divisions: m, steps along each edge, a Python int. Two tasks have m + 1
        preferences; 19 make 210 for three tasks.

    Returns:
      `[N, T]`, rows that sum to 1, in order of the first task's share.

    Raises:
      ValueError: for a number that is no positive Python int.

    Cost: none, it runs on the host.

    When not to use it: with many tasks, where N explodes and nearly all rows lie on the
    border; draw from a Dirichlet distribution there. Rows on the border have zeros:
    a method that takes the preference as weights leaves these tasks alone.

    Example:
      >>> import mtl_optax as mtl
      >>> mtl.simplex_lattice(2, 4)[:, 0]
      Array([0.  , 0.25, 0.5 , 0.75, 1.  ], dtype=float32)

    References:
      Das and Dennis, `Normal-Boundary Intersection: A New Method for Generating the
      Pareto Surface <https://doi.org/10.1137/S1052623496307510>`_, 1998.
    """
    num_tasks = static_int("num_tasks", num_tasks)
    divisions = static_int("divisions", divisions)
    # Bars between stars: where T - 1 bars stand among divisions + T - 1 places.
    places = range(divisions + num_tasks - 1)
    bars = np.array([*itertools.combinations(places, num_tasks - 1)], int)
    ends = np.full((len(bars), 1), [divisions + num_tasks - 1])
    edges = np.concatenate([np.full_like(ends, -1), bars, ends], axis=1)
    counts = np.diff(edges, axis=1) - 1
    return jnp.asarray(counts / divisions, jnp.result_type(float))


def _points(losses: Any) -> Array:
    array = jnp.asarray(losses)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            "losses must be [N, T], one row a point and one column a task; got shape "
            f"{array.shape}."
        )
    # Every point is compared with every other: sharded ones are gathered first.
    return whole(array.astype(jnp.result_type(float)))
