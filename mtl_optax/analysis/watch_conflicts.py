"""Conflicts between task gradients over a whole training, in constant memory.

Mean and standard deviation by Welford's update, percentiles from a histogram: what
Elich et al. (arXiv 2311.04698) report of every fifth step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.chains.places import ROWS, placed
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.spread import similarity
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.leaves import chosen
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskPairs


class Stream(NamedTuple):
    """One measure of every pair of tasks, as far as it was seen."""

    mean: TaskPairs  # [T, T]
    squares: TaskPairs  # [T, T], sum of squared deviations from the mean
    histogram: TaskPairs  # [T, T, bins] int32


class WatchConflictsState(NamedTuple):
    """State of watch_conflicts."""

    conflict_counts: TaskPairs  # [T, T] int32, measurements of each pair
    conflict_cosines: Stream  # bins from -1 to 1
    conflict_magnitudes: Stream  # bins from 0 to 1
    step_in_cycle: jax.Array  # [] int32, steps since the last measurement


def watch_conflicts(
    num_tasks: int,
    *,
    shared: optax.Params | Callable[[optax.Params], Any] | None = None,
    every_k: int = 10,
    bins: int = 200,
) -> optax.GradientTransformationExtraArgs:
    r"""Collects how far task gradients disagree; they pass through unchanged.

    .. math::
      C_{ts} = \frac{\langle g_t, g_s \rangle}{\|g_t\| \, \|g_s\|}, \quad
      M_{ts} = \frac{2 \, \|g_t\| \, \|g_s\|}{\|g_t\|^2 + \|g_s\|^2}

    at the steps 0, k, 2k, ...: mean, standard deviation and a histogram of each, which
    :func:`mtl_optax.conflict_summary` reads. It stands before the method,
    `optax.chain(watch_conflicts(...), method, optimiser)`.

    Args:
      num_tasks: T, a Python int.
      shared: mask of the leaves that count, as in :func:`mtl_optax.on_shared`: a tree
        of bools like the parameters, a prefix of one, or a function that makes it;
        None: all leaves. A task's own head adds to its norm and to no inner product, so
        with heads among the leaves cosines shrink.
      every_k: steps from one measurement to the next, a Python int.
      bins: of the histograms, an even Python int, so that 0 is an edge. A percentile is
        exact to the width of a bin, 2 / bins for cosines.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, into the
      same ones. Its `update` needs `params` where `shared` is given. Not counted are
      pairs with a task that is not `active`, whose gradient is zero, or not finite.
      Output scale: the gradients as they came.

    Raises:
      ValueError: for a `num_tasks` or `every_k` that is no positive Python int, bins
        that are odd, gradients that are not stacked, or a mask that is True nowhere.

    Cost: one Gramian at a measured step, with lazy gradients T backward passes; none at
    others. State of T x T x (2 bins + 5) numbers. Under `jax.vmap` every step is
    measured and most measurements dropped.

    When not to use it: with a method that forms the Gramian itself, where its last one
    is enough: :func:`mtl_optax.metrics` reads that for nothing. To start anew, at an
    epoch say, put a fresh state in the place of this part:
    `state = (watch.init(params), *state[1:])`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, mtl_optax as mtl
      >>> losses_fn = lambda x: {"a": jnp.sum(x**2), "b": jnp.sum((x - 3) ** 2)}
      >>> watch = mtl.watch_conflicts(num_tasks=2, every_k=5)
      >>> tx = optax.chain(watch, mtl.mean(num_tasks=2), optax.sgd(0.1))
      >>> params = jnp.array([4.0, 1.0])
      >>> state = tx.init(params)
      >>> for _ in range(20):
      ...     losses, grads = mtl.lazy_task_grads(losses_fn)(params)
      ...     updates, state = tx.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> summary = mtl.conflict_summary(state, percentiles=(50.0,))
      >>> int(summary.counts[0, 1]), float(summary.conflicting[0, 1])
      (4, 0.75)

    References:
      Elich et al., `Examining Common Paradigms in Multi-task Learning
      <https://arxiv.org/abs/2311.04698>`_, 2024, who report the same of their runs.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    every_k = checks.static_int("every_k", every_k)
    bins = checks.static_int("bins", bins)
    if bins % 2:
        raise ValueError(f"bins must be even, so that 0 is an edge of one; got {bins}.")

    def init(params: optax.Params) -> WatchConflictsState:
        check_params("tx.init", params)
        zeros = replicated_zeros((num_tasks, num_tasks), params)
        counts = zeros.astype(jnp.int32)
        histogram = jnp.broadcast_to(counts[:, :, None], (*counts.shape, bins))
        stream = Stream(zeros, zeros, histogram)
        return WatchConflictsState(counts, stream, stream, jnp.zeros((), jnp.int32))

    def update(
        updates: Any,
        state: WatchConflictsState,
        params: optax.Params | None = None,
        *,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, WatchConflictsState]:
        del extra_args  # of the method
        rows = as_task_grads(updates, num_tasks, params, active=active)
        if not jax.tree.leaves(rows.like()):
            return updates, state
        if shared is not None:
            checks.required("watch_conflicts", "params", params)
            rows = rows.select(_kept(shared, params))
        gradients = rows.at_parameters()
        if params is not None:
            check_state(state, jax.eval_shape(init, params), num_tasks)

        def measure(state: WatchConflictsState) -> WatchConflictsState:
            gramian, _ = gradients.computed().measure()
            return _with_one_more(state, gramian, rows.active)

        new = lax.cond(state.step_in_cycle == 0, measure, lambda x: x, state)
        return updates, new._replace(step_in_cycle=(new.step_in_cycle + 1) % every_k)

    return placed(init, update, ROWS)


def _kept(shared: Any, params: Any) -> tuple[bool, ...]:
    kept = chosen(shared, params, "shared=")
    if not any(kept):
        raise ValueError(
            "watch_conflicts: shared= is False on every leaf, so that there is nothing "
            "to compare: put True on the leaves that all tasks use."
        )
    return kept


def _with_one_more(
    state: WatchConflictsState, gramian: jax.Array, active: jax.Array | None
) -> WatchConflictsState:
    """The streams with the measures of one Gramian, where they are numbers."""
    cosines, norms = linalg.cosine_matrix(gramian)
    alike = similarity(norms)
    known = (norms > 0) & jnp.isfinite(norms)
    known = known if active is None else known & active
    seen = known[:, None] & known[None, :] & jnp.isfinite(cosines) & jnp.isfinite(alike)
    counts = state.conflict_counts + seen
    bins = state.conflict_cosines.histogram.shape[-1]
    # Rounding 1 + cosine would put what is hardly below 0 above it.
    place = jnp.floor(cosines * (bins // 2)) + bins // 2
    return WatchConflictsState(
        counts,
        _streamed(state.conflict_cosines, cosines, place, counts, seen),
        _streamed(state.conflict_magnitudes, alike, alike * bins, counts, seen),
        state.step_in_cycle,
    )


def _streamed(
    old: Stream, value: jax.Array, place: jax.Array, counts: jax.Array, seen: jax.Array
) -> Stream:
    """One more value a pair: Welford's update, and one more in a bin."""
    value = jnp.where(seen, value, old.mean).astype(old.mean.dtype)
    away = value - old.mean
    mean = old.mean + away / jnp.maximum(counts, 1)
    bins = old.histogram.shape[-1]
    index = jnp.clip(jnp.where(seen, place, 0), 0, bins - 1).astype(jnp.int32)
    hit = jax.nn.one_hot(index, bins, dtype=jnp.int32) * seen[:, :, None]
    return Stream(mean, old.squares + away * (value - mean), old.histogram + hit)
