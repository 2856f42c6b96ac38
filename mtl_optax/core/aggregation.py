"""The one place where a Gramian is formed and weights are applied.

A `Weighting` decides T numbers. `from_weighting` does everything else: one Gramian, the
rule, one weighted sum, and the record of what the method did.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.cancellation import zero_if_cancelling, zero_if_noise
from mtl_optax.core.chains.places import placed
from mtl_optax.core.state_guard import batched, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.in_range import as_seen
from mtl_optax.core.task_grads.leaf_products import masked_gramian
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.branches import as_before
from mtl_optax.core.trees.leaves import blocks_of, chosen, one_block
from mtl_optax.core.trees.replicated import replicated_zeros, whole
from mtl_optax.core.trees.task_axis import TaskPairs, TaskRows
from mtl_optax.core.weighting import Weighting, check_weighting


class WeightingState(NamedTuple):
    """State of every method made by `from_weighting`."""

    task_weights: TaskRows  # [T] weights of the last update ([B, T] for B blocks)
    # [T, T] of the last update, 0 for inactive tasks, the symmetric part of a cross
    # Gramian; None if not used
    task_gramian: TaskPairs | None
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
    the gradients, and Adam would blow the rounding noise up to full steps. (Its
    square is compared instead, in the Gramian, block by block with a `granularity`, and
    for lazy gradients with a Gramian that is given, or at features. With `leaves` or a
    cross Gramian nothing is, for what cancels there may not cancel here.)

    Args:
      weighting: the rule for the weights.
      num_tasks: T, a Python int.
      granularity: None takes one Gramian over all parameters; "leaf" one for each leaf;
        a tree of labels like the parameters (or a prefix of it, or a function from
        parameters to one) one for each label, for example the q, k and v of one layer.
        Each of the B blocks has weights and state of its own (random draws are the same
        for all). In order of each block's first leaf.
      leaves: the leaves that the Gramian is taken over, a tree of bools like the
        parameters (or a prefix of it) or a function from parameters to one; None for
        those that the weighting names, or all. The weights apply to all leaves in
        either case.

    Returns:
      A transformation of stacked gradients, leaves `[T, *param.shape]`, or of
      :class:`LazyTaskGrads`, into updates `[*param.shape]`. Extra arguments of its
      `update`: `losses` `[T]` (or a dict or tuple of T scalars; lazy gradients bring
      theirs), `active` `[T]` bool (or a dict), `gramian` `[T, T]` in place of forming
      one (`[B, T, T]` for B blocks; a cross Gramian for a weighting that takes one),
      and whatever the weighting itself reads. What is `[T]` is in sorted order of
      names.

    Raises:
      ValueError: at construction for a `num_tasks` that is no positive Python int or
        does not suit the weighting, or `leaves` with a granularity; in `init` and
        `update` if `leaves` names none; in `update` for gradients that are not stacked,
        names that differ, a `gramian` of another shape, a state of another number of
        tasks, or extra arguments that only other methods take (names that this library
        does not know are ignored).

    Cost: with lazy gradients at most T backward passes for the Gramian, if it is used,
    and with `leaves` at most T down to these and a full one. With stacked ones, T and
    one read of the gradients (two and T copies of a leaf at a time, if the weighting
    looks again), and one more for the weighted sum.

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
    check_weighting("from_weighting", weighting)
    leaves = weighting.leaves if leaves is None else leaves
    if not one_block(granularity):
        _check_blocks(weighting, leaves)
    # Asked at once, for it checks the rule's arguments.
    wanted = _shapes(jax.eval_shape(lambda: weighting.init(num_tasks)), num_tasks)
    wanted = wanted if weighting.uses_gramian else wanted._replace(task_gramian=None)

    def init(params: optax.Params) -> WeightingState:
        check_params("tx.init", params)
        _kept_leaves(leaves, params)
        blocks = blocks_of(granularity, params)
        state = weighting.init(num_tasks)
        lead: tuple[int, ...] = ()
        if blocks is not None:
            lead = (len(set(blocks)),)
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
        gramian: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WeightingState]:
        _check_taken(weighting, gramian, extra_args, updates)
        gradients = as_task_grads(
            *(updates, num_tasks, params),
            losses=losses,
            active=active,
            names=weighting.names,
        )
        mask, like = gradients.active, gradients.like()
        if not jax.tree.leaves(like):
            return like, state
        tree = like if params is None else params
        kept, blocks = _kept_leaves(leaves, tree), blocks_of(granularity, tree)
        lead = () if blocks is None else (len(set(blocks)),)
        check_state(state, batched(wanted, *lead), num_tasks)
        given = _given_gramian(gramian, state.task_gramian, mask)
        crossed = given is not None and weighting.asymmetric
        present = jnp.ones(num_tasks, bool) if mask is None else mask

        def weigh(
            gramian: Any, unit: Any, inner: Any, look: Any = None
        ) -> tuple[jax.Array, Any]:
            about = {"look": look, "names": gradients.names, "unit": unit}
            about = {**extra_args, **about}
            weights, inner = weighting.update(
                gramian, inner, losses=gradients.losses, active=present, **about
            )
            return jnp.where(present, _one_a_task(weights, num_tasks), 0), inner

        def fresh(inner: Any) -> tuple[optax.Updates, WeightingState]:
            seen, whole, gramian = gradients, gradients, given
            unit = jnp.ones(state.task_weights.shape[:-1])
            if weighting.uses_gramian and given is None:
                seen, whole = _to_look_at(gradients, kept, blocks)
                gramian, unit = seen.measure(blocks)
            if blocks is not None:
                count = len(set(blocks))
                weights, inner = jax.vmap(weigh, axis_size=count)(gramian, unit, inner)
            else:
                readable = seen.measured and given is None
                look = (lambda v: seen.mix(v / unit)) if readable else None
                weights, inner = weigh(gramian, unit, inner, look)
            if gramian is None or kept is not None or crossed:
                new = whole.pull(weights, blocks)
            elif blocks is None and whole.measured:
                new = zero_if_noise(whole, weights, gramian, unit)
            else:
                new = whole.pull(zero_if_cancelling(weights, gramian), blocks)
            if gramian is not None and crossed:
                gramian = (gramian + gramian.mT) / 2
            if gramian is not None:
                gramian = as_seen(gramian, unit)
            return new, WeightingState(weights, gramian, inner)

        def held(inner: Any) -> tuple[optax.Updates, WeightingState]:
            weights = jnp.where(present, state.task_weights, 0)
            return gradients.pull(weights), state._replace(weighting=inner)

        def renewed(inner: Any) -> tuple[optax.Updates, WeightingState]:
            new, after = fresh(inner)  # in the types of `held`, whatever the rule does
            return new, as_before("The weighting in every_k", after, state)

        if weighting.due is None:
            return fresh(state.weighting)
        due, inner = weighting.due(state.weighting)
        return lax.cond(due, renewed, held, inner)

    return placed(init, update)


def _shapes(inner: Any, num_tasks: int) -> WeightingState:
    """Those of the state, for a rule with the state `inner`."""
    kind = jnp.result_type(float)
    vector, square = (num_tasks,), (num_tasks, num_tasks)
    of_weights, of_gramian = (jax.ShapeDtypeStruct(s, kind) for s in (vector, square))
    return WeightingState(cast(Any, of_weights), cast(Any, of_gramian), inner)


def _to_look_at(
    gradients: TaskGrads, kept: tuple[bool, ...] | None, blocks: Any
) -> tuple[TaskGrads, TaskGrads]:
    """What the Gramian is of, and what is summed, in the cheapest forms for both."""
    if kept is not None or blocks is not None:
        gradients = gradients.at_parameters()
    if kept is not None:
        return gradients.select(kept).computed(), gradients
    whole = gradients.computed()
    return whole, whole


def _kept_leaves(leaves: Any, tree: Any) -> tuple[bool, ...] | None:
    """One bool for each leaf of the tree that the Gramian is taken over, or None."""
    kept = None if leaves is None else chosen(leaves, tree, "leaves=")
    if kept and not any(kept):
        raise ValueError(
            "leaves= names no leaf to take the Gramian over: it must be True on one or "
            f"more leaves of {jax.tree.structure(tree)}."
        )
    return kept


def _one_a_task(weights: Any, num_tasks: int) -> jax.Array:
    """What a weighting returned, as `[T]` in the precision of T-sized numbers."""
    array = jnp.asarray(weights)
    if array.shape != (num_tasks,):
        raise ValueError(
            "The update of a weighting must return one weight a task, shape "
            f"({num_tasks},), and its state; the weights have shape {array.shape}."
        )
    return array.astype(jnp.result_type(float))


def _check_blocks(weighting: Weighting, leaves: Any) -> None:
    if weighting.due is not None:
        raise ValueError(
            "granularity= gives every block of leaves a state of its own, but a "
            "weighting with due (every_k) has one clock for all: leave it out."
        )
    if leaves is not None:
        raise ValueError(
            "granularity= takes the weights of every block from its own Gramian, "
            "so there is none for the leaves that leaves= leaves out: use one of both."
        )


def _check_taken(
    weighting: Weighting, gramian: Any, extra_args: dict[str, Any], updates: Any
) -> None:
    """Raises for extra arguments that only other methods take."""
    given = {"gramian": gramian, **extra_args}
    taken = given.keys() if weighting.takes is None else weighting.takes
    seen = {"gramian"} if weighting.uses_gramian else set()
    checks.only_taken(given, (taken - {"gramian"}) | seen, updates)


def _given_gramian(
    value: Any, recorded: jax.Array | None, active: jax.Array | None
) -> jax.Array | None:
    """The extra argument in place of the Gramian, shaped like the one in the state."""
    if value is None or recorded is None:
        return None
    gramian = jnp.asarray(value)
    if gramian.shape != recorded.shape:
        raise ValueError(
            f"gramian= must have shape {recorded.shape}, inner products of all pairs "
            f"of task gradients; got shape {gramian.shape}."
        )
    return masked_gramian(whole(gramian.astype(recorded.dtype)), active)
