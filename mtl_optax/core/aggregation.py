"""The one place where a Gramian is formed and weights are applied.

A `Weighting` decides T numbers. `from_weighting` does everything else: checks, lazy
gradients, missing tasks, the Gramian, the weighted sum, and the record of what the
method did.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core import guards
from mtl_optax.core.arguments import checks
from mtl_optax.core.cancellation import zero_if_noise
from mtl_optax.core.combine import combine, combine_per_leaf
from mtl_optax.core.form_gramian import form_gramian, kept_leaves
from mtl_optax.core.gramians import rotated_gramian
from mtl_optax.core.lazy import LazyTaskGrads, one_tree
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.weighting import Weighting


class WeightingState(NamedTuple):
    """State of every method made by `from_weighting`."""

    task_weights: jax.Array  # [T] weights of the last update ([L, T] for L leaves)
    # [T, T] of the last update, 0 for inactive tasks, the symmetric part of a
    # cross_gramian; None if not used
    task_gramian: jax.Array | None
    weighting: Any  # state of the weighting itself


def from_weighting(
    weighting: Weighting,
    num_tasks: int,
    *,
    granularity: Any = None,
    leaves: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Turns a weighting into an aggregator of per-task gradients.

    .. math:: w = \text{weighting}(K, L), \quad d = \sum_t w_t \, g_t

    Where the norm of d is within rounding of 0, `4 T eps` of
    :math:`(\sum_t w_t^2 K_{tt})^{1/2}`, the update is exactly zero: the weights cancel
    the gradients, and Adam would blow the rounding noise up to full steps. (With a
    Gramian other than that of the parameters its square is compared instead; with
    `leaves` or `cross_gramian` nothing is, for what cancels there may not cancel here.)

    Args:
      weighting: the rule for the weights.
      num_tasks: T, a Python int.
      granularity: None takes one Gramian over all parameters; "leaf" one for each
        leaf, with weights and state of its own (random draws are the same for all).
      leaves: the leaves that the Gramian is taken over, a tree of bools like the
        parameters (or a prefix of it) or a function from parameters to one; None for
        those that the weighting names, or all. The weights apply to all leaves in
        either case.

    Returns:
      A transformation of stacked gradients, leaves `[T, *param.shape]`, or of
      :class:`LazyTaskGrads`, into updates `[*param.shape]`. Extra arguments of its
      `update`: `losses` `[T]` (or a dict or tuple of T scalars; lazy gradients bring
      theirs), `active` `[T]` bool, `precomputed_gramian` `[T, T]` in place of forming
      one (or `cross_gramian`, for a weighting that takes it), and whatever the
      weighting itself reads.

    Raises:
      ValueError: at construction for a `num_tasks` that is no positive Python int, or
        `leaves` with `granularity="leaf"`; in `init` and `update` if `leaves` names
        none; in `update` for gradients that are not stacked, see
        :mod:`mtl_optax.core.guards`.

    Cost: T backward passes and one read of the gradients for the Gramian, if it is used
    (two and T copies of a leaf at a time, if the weighting has a `basis`); one read for
    the weighted sum. With `leaves`, lazy gradients need T passes down to these leaves
    and one full pass (T full ones if `active` is passed, so that a NaN task stays
    isolated).

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> smallest_norm = mtl.Weighting(
      ...     init=lambda num_tasks: (),
      ...     update=lambda gramian, state, *, losses, active, **extra: (
      ...         1.0 / jnp.sqrt(jnp.diag(gramian)),
      ...         state,
      ...     ),
      ... )
      >>> tx = mtl.from_weighting(smallest_norm, num_tasks=2)
      >>> grads = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}
      >>> update, state = tx.update(grads, tx.init({"w": jnp.zeros(2)}))
      >>> update
      {'w': Array([1., 1.], dtype=float32)}
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.one_of("granularity", granularity, (None, "tree", "leaf"))
    per_leaf = granularity == "leaf"
    leaves = weighting.leaves if leaves is None else leaves
    jax.eval_shape(lambda: weighting.init(num_tasks))  # checks values for each task
    if per_leaf and weighting.due is not None:
        raise ValueError(
            'granularity="leaf" gives every leaf a state of its own, but a weighting '
            "with due (every_k) has one clock for all: use granularity=None."
        )
    if per_leaf and leaves is not None:
        raise ValueError(
            'granularity="leaf" takes the weights of every leaf from its own Gramian, '
            "so there is none for the leaves that leaves= leaves out: use "
            "granularity=None."
        )

    def init(params: optax.Params) -> WeightingState:
        kept_leaves(leaves, params)
        state = weighting.init(num_tasks)
        lead: tuple[int, ...] = ()
        if per_leaf:
            lead = (len(jax.tree.leaves(params)),)
            state = jax.tree.map(lambda x: jnp.broadcast_to(x, lead + x.shape), state)
        weights = replicated_zeros((*lead, num_tasks), params)
        gramian = replicated_zeros((*lead, num_tasks, num_tasks), params)
        return WeightingState(
            weights, gramian if weighting.uses_gramian else None, state
        )

    def update(
        updates: Any,
        state: WeightingState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        precomputed_gramian: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightingState]:
        guards.task_gradients(updates, num_tasks, params)
        losses = guards.losses_vector(losses, updates, num_tasks)
        mask = guards.active_mask(active, num_tasks)
        like = one_tree(updates)
        if not jax.tree.leaves(like):
            return like, state

        name, value = "precomputed_gramian", precomputed_gramian
        cross = extra_args.get("cross_gramian") if weighting.asymmetric else None
        if cross is not None:
            name, value = "cross_gramian", cross
        given = guards.gramian_like(name, value, state.task_gramian)
        tells_zero = leaves is None and cross is None
        weighted_sum = combine_per_leaf if per_leaf else combine
        present = jnp.ones(num_tasks, bool) if mask is None else mask
        if mask is not None and losses is not None:
            losses = jnp.where(mask, losses, 1)

        def weigh(
            gramian: Any, inner: Any, rows: Any = None
        ) -> tuple[jax.Array, Any, Any]:
            if mask is not None and gramian is not None:
                gramian = jnp.where(mask[:, None] & mask[None, :], gramian, 0)
            more = dict(extra_args)
            if weighting.basis is not None and rows is not None:
                basis = weighting.basis(gramian)
                more["rotated"] = basis, rotated_gramian(rows, basis, mask)
            weights, inner = weighting.update(
                gramian, inner, losses=losses, active=present, **more
            )
            return jnp.where(present, weights, 0), gramian, inner

        def fresh(inner: Any) -> tuple[optax.Updates, WeightingState]:
            gramian, rows, gradients = given, None, updates
            if weighting.uses_gramian and given is None:
                kept = kept_leaves(leaves, like if params is None else params)
                gramian, rows, gradients = form_gramian(updates, per_leaf, kept, mask)
            if per_leaf:
                weights, gramian, inner = jax.vmap(weigh)(gramian, inner)
            else:
                weights, gramian, inner = weigh(gramian, inner, rows)
            if cross is not None:
                gramian = (gramian + gramian.mT) / 2
            state = WeightingState(weights, gramian, inner)
            if per_leaf:
                weights = jax.vmap(zero_if_noise)(weights, gramian)
            elif gramian is not None and tells_zero:
                lazy = isinstance(gradients, LazyTaskGrads)
                seen = None if lazy else gradients
                weights = zero_if_noise(weights, gramian, seen, mask)
            return weighted_sum(gradients, weights, mask), state

        def held(inner: Any) -> tuple[optax.Updates, WeightingState]:
            weights = state.task_weights
            weights = weights if mask is None else jnp.where(mask, weights, 0)
            return weighted_sum(updates, weights, mask), state._replace(weighting=inner)

        if weighting.due is None:
            return fresh(state.weighting)
        due, inner = weighting.due(state.weighting)
        return lax.cond(due, fresh, held, inner)

    return optax.GradientTransformationExtraArgs(init, update)
