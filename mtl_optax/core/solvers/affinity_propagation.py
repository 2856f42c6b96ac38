"""Affinity propagation: clusters from a matrix of similarities, on the device.

Frey & Dueck 2007 (Clustering by Passing Messages Between Data Points) in scikit-learn's
form: its default preference, its test of convergence and its last refinement of the
exemplars. Similarities are centred and scaled, which only scales the messages, so that
float32 is enough. The noise that breaks ties is fixed, and larger than a rounding unit:
noise of that size breaks a tie so late that it may break badly (on the four points of
our test, in 4 % of the draws).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

_FAR = 1e30  # how far from every point one is that takes no part
_NOISE = 1e-6  # in units of the largest similarity


class Clusters(NamedTuple):
    """What affinity propagation found; n slots, whatever the number of clusters."""

    labels: Array  # [n] int32, the first point of each point's cluster; or all -1
    exemplars: Array  # [n] int32, the point that stands for each point's cluster; or -1
    converged: Array  # [] bool


class _Messages(NamedTuple):
    availability: Array  # [n, n]
    responsibility: Array  # [n, n]
    exemplar: Array  # [n] bool, the points that stand for themselves
    unchanged: Array  # [] int32, iterations since `exemplar` changed
    iteration: Array  # [] int32
    converged: Array  # [] bool


@jax.jit
def affinity_propagation(
    similarity: Array,
    preference: Any = None,
    damping: Any = 0.5,
    max_iter: Any = 200,
    convergence_iter: Any = 15,
    present: Array | None = None,
) -> Clusters:
    r"""Clusters points by passing messages; their number is not given in advance.

    .. math::
      r_{ik} = s_{ik} - \max_{j \ne k} (a_{ij} + s_{ij}), \quad
      a_{ik} = \min \Big( 0, r_{kk} + \sum_{j \notin \{i, k\}} \max(0, r_{jk}) \Big),
      \quad a_{kk} = \sum_{j \ne k} \max(0, r_{jk})

    Points with :math:`a_{kk} + r_{kk} > 0` are exemplars, and the others belong to the
    most similar one.

    Args:
      similarity: `[n, n]`, that of point i with exemplar k in row i.
      preference: similarity of each point with itself, a number or `[n]`; a larger one
        gives more clusters. None is the median of the similarities, diagonal included.
      damping: share of the old message that is kept.
      max_iter: most iterations.
      convergence_iter: iterations without change after which it has converged.
      present: `[n]` bool; the other points take no part. None is all of them.

    Returns:
      :class:`Clusters`. Points that take no part are their own cluster. Where it did
      not converge, or a similarity is not finite, `labels` and `exemplars` are -1. If
      all preferences are equal, and all similarities of different points, every point
      is its own cluster where the preference is the larger, and all are one cluster
      otherwise; no iteration is made.

    Cost: at most `max_iter` iterations on `[n, n]` numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> similarity = jnp.eye(3).at[0, 2].set(0.9).at[2, 0].set(0.9)
      >>> affinity_propagation(similarity, preference=0.5).labels
      Array([0, 1, 0], dtype=int32)
    """
    number = similarity.shape[0]
    dtype = jnp.result_type(similarity, float)
    diagonal = jnp.eye(number, dtype=bool)
    here = jnp.ones(number, bool) if present is None else present
    pairs = here[:, None] & here[None, :]

    middle = _median(similarity, pairs)
    preference = middle if preference is None else jnp.asarray(preference, dtype)
    preference = jnp.broadcast_to(preference, (number,))
    given = jnp.where(diagonal, preference[:, None], similarity)
    centred = jnp.where(pairs, given - middle, 0)
    scale = jnp.max(jnp.abs(centred))
    scaled = centred / jnp.where(scale > 0, scale, 1)
    noise = jax.random.normal(jax.random.key(0), (number, number), dtype)
    similarity = scaled + _NOISE * noise
    similarity = jnp.where(pairs, similarity, jnp.where(diagonal, 0, -_FAR))

    first = jnp.argmax(here)
    apart = pairs & ~diagonal
    no_choice = _all_equal(given, apart) & _all_equal(preference, here)
    nearest = jnp.max(jnp.where(apart, given, -jnp.inf))
    trivial = jnp.where(
        here & (preference[first] <= nearest), first, jnp.arange(number)
    )

    def unfinished(m: _Messages) -> Array:
        return (m.iteration < max_iter) & ~m.converged

    def iterate(m: _Messages) -> _Messages:
        return _iterate(m, similarity, here, damping, convergence_iter)

    zeros = jnp.zeros((number, number), dtype)
    zero = jnp.zeros((), jnp.int32)
    start = _Messages(zeros, zeros, jnp.zeros(number, bool), zero, zero, no_choice)
    end = lax.while_loop(unfinished, iterate, start)

    chosen = _assign(similarity, _refined(similarity, end.exemplar | ~here))
    exemplars = jnp.where(no_choice, trivial, chosen)
    converged = end.converged & jnp.all(jnp.isfinite(jnp.where(pairs, given, 0)))
    together = exemplars[:, None] == exemplars[None, :]
    labels, exemplars = (
        jnp.where(converged, x, -1).astype(jnp.int32)
        for x in (jnp.argmax(together, axis=1), exemplars)
    )
    return Clusters(labels, exemplars, converged)


def _iterate(
    m: _Messages, similarity: Array, here: Array, damping: Any, convergence_iter: Any
) -> _Messages:
    number = similarity.shape[0]
    diagonal = jnp.eye(number, dtype=bool)

    # The best of the other candidates: for the best one itself that is the second.
    support = m.availability + similarity
    best = jnp.argmax(support, axis=1)[:, None] == jnp.arange(number)[None, :]
    highest = jnp.max(support, axis=1)[:, None]
    second = jnp.max(jnp.where(best, -jnp.inf, support), axis=1)[:, None]
    new = similarity - jnp.where(best, jnp.maximum(second, -_FAR), highest)
    responsibility = damping * m.responsibility + (1 - damping) * new

    votes = jnp.where(diagonal, responsibility, jnp.maximum(responsibility, 0))
    others = jnp.sum(votes, axis=0)[None, :] - votes
    new = jnp.where(diagonal, others, jnp.minimum(others, 0))
    availability = damping * m.availability + (1 - damping) * new

    exemplar = (jnp.diagonal(availability) + jnp.diagonal(responsibility) > 0) & here
    same = jnp.all(exemplar == m.exemplar)
    unchanged = jnp.where(same, m.unchanged, 0) + 1
    # The first window may not end with the iteration that fills it (scikit-learn).
    settled = (unchanged >= convergence_iter) & (m.iteration >= convergence_iter)
    return _Messages(
        availability,
        responsibility,
        exemplar,
        unchanged,
        m.iteration + 1,
        settled & jnp.any(exemplar),
    )


def _refined(similarity: Array, exemplar: Array) -> Array:
    """The point of each cluster to which the others of it are most similar `[n]`."""
    chosen = _assign(similarity, exemplar)
    together = chosen[:, None] == chosen[None, :]
    total = jnp.sum(jnp.where(together, similarity, 0), axis=0)
    central = jnp.argmax(jnp.where(together, total[None, :], -jnp.inf), axis=1)
    return central == jnp.arange(similarity.shape[0])


def _assign(similarity: Array, exemplar: Array) -> Array:
    """The most similar exemplar of each point `[n]`; an exemplar is its own."""
    nearest = jnp.argmax(jnp.where(exemplar[None, :], similarity, -jnp.inf), axis=1)
    return jnp.where(exemplar, jnp.arange(similarity.shape[0]), nearest)


def _median(values: Array, where: Array) -> Array:
    ordered = jnp.sort(jnp.where(where, values, jnp.inf), axis=None)
    count = jnp.maximum(jnp.sum(where), 1)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def _all_equal(values: Array, where: Array) -> Array:
    low = jnp.min(jnp.where(where, values, jnp.inf))
    return low >= jnp.max(jnp.where(where, values, -jnp.inf))
