"""Weightings, and the one place where a Gramian is formed and weights are applied.

A method that only decides T numbers is a `Weighting`, a pair of pure functions of
T-sized arrays. `from_weighting` does everything else: checks, lazy gradients, missing
tasks, the Gramian, the weighted sum, and the record of what the method did.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core import checks, linalg, products
from mtl_optax.core.lazy import LazyTaskGrads, TaskRows
from mtl_optax.core.leaves import chosen, only


class Weighting(NamedTuple):
    """A rule that turns losses and Gramian into task weights.

    Attributes:
      init: `init(num_tasks) -> state`, any pytree of arrays.
      update: `update(gramian, state, *, losses, active, **extra) -> (weights, state)`.
        `gramian` is `[T, T]`, zero in rows and columns of inactive tasks (None unless
        `uses_gramian`); `losses` is `[T]`, 1 at inactive tasks, or None; `active` is
        always an array `[T]` bool. Weights of inactive tasks are set to 0 afterwards;
        their statistics in `state` are the weighting's own to keep.
      uses_gramian: whether `update` reads the Gramian; if not, none is formed and lazy
        gradients cost a single backward pass.
      due: `due(state) -> (bool, state)`, asked first if given: where it says no, the
        last weights are applied again, and neither Gramian nor `update` is computed.
      takes_cross_gramian: whether the extra argument `cross_gramian` `[T, T]`, inner
        products `J1 J2'` of gradients on two independent batches, may stand in for the
        Gramian. `update` then gets it as `gramian`, and none is formed; it is not
        symmetric, and its diagonal may be negative.
    """

    init: Callable[[int], Any]
    update: Callable[..., tuple[jax.Array, Any]]
    uses_gramian: bool = True
    due: Callable[[Any], tuple[jax.Array, Any]] | None = None
    takes_cross_gramian: bool = False


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
    granularity: str = "tree",
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
      granularity: "tree" takes one Gramian over all parameters; "leaf" one for each
        leaf, with weights and state of its own (random draws are the same for all).
      leaves: the leaves that the Gramian is taken over, a tree of bools like the
        parameters (or a prefix of it) or a function from parameters to one; None for
        all of them. The weights apply to all leaves in either case.

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
        :mod:`mtl_optax.core.checks`.

    Cost: T backward passes and one read of the gradients for the Gramian, if it is
    used; one read for the weighted sum. With `leaves`, lazy gradients need T passes
    down to these leaves and one full pass (T full ones if `active` is passed, so that a
    NaN task stays isolated).

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
    checks.one_of("granularity", granularity, ("tree", "leaf"))
    per_leaf = granularity == "leaf"
    if per_leaf and weighting.due is not None:
        raise ValueError(
            'granularity="leaf" gives every leaf a state of its own, but a weighting '
            'with due (every_k) has one clock for all: use granularity="tree".'
        )
    if per_leaf and leaves is not None:
        raise ValueError(
            'granularity="leaf" takes the weights of every leaf from its own Gramian, '
            "so there is none for the leaves that leaves= leaves out: use "
            'granularity="tree".'
        )

    def init(params: optax.Params) -> WeightingState:
        _chosen(leaves, params)
        state = weighting.init(num_tasks)
        lead: tuple[int, ...] = ()
        if per_leaf:
            lead = (len(jax.tree.leaves(params)),)
            state = jax.tree.map(lambda x: jnp.broadcast_to(x, lead + x.shape), state)
        weights = products.replicated_zeros((*lead, num_tasks), params)
        gramian = products.replicated_zeros((*lead, num_tasks, num_tasks), params)
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
        checks.task_gradients(updates, num_tasks, params)
        losses = checks.losses_vector(losses, updates, num_tasks)
        mask = checks.active_mask(active, num_tasks)
        if checks.is_empty(updates):
            return _like(updates), state

        name, value = "precomputed_gramian", precomputed_gramian
        cross = (
            extra_args.get("cross_gramian") if weighting.takes_cross_gramian else None
        )
        if cross is not None:
            name, value = "cross_gramian", cross
        given = checks.gramian_like(name, value, state.task_gramian)
        tells_zero = leaves is None and cross is None
        combine = products.combine_per_leaf if per_leaf else products.combine

        def weigh(gramian: Any, inner: Any) -> tuple[jax.Array, Any, Any]:
            return _weigh(
                weighting, num_tasks, gramian, inner, losses, mask, extra_args
            )

        def fresh(inner: Any) -> tuple[optax.Updates, WeightingState]:
            gramian, gradients = given, updates
            if weighting.uses_gramian and gramian is None:
                kept = _chosen(leaves, _like(updates) if params is None else params)
                gramian, gradients = _form_gramian(updates, per_leaf, kept, mask)
            each = jax.vmap(weigh) if per_leaf else weigh
            weights, gramian, inner = each(gramian, inner)
            if cross is not None:
                gramian = (gramian + gramian.mT) / 2
            state = WeightingState(weights, gramian, inner)
            if per_leaf:
                weights = jax.vmap(zero_if_noise)(weights, gramian)
            elif gramian is not None and tells_zero:
                lazy = isinstance(gradients, LazyTaskGrads)
                seen = None if lazy else gradients
                weights = zero_if_noise(weights, gramian, seen, mask)
            return combine(gradients, weights, mask), state

        def held(inner: Any) -> tuple[optax.Updates, WeightingState]:
            weights = state.task_weights
            weights = weights if mask is None else jnp.where(mask, weights, 0)
            return combine(updates, weights, mask), state._replace(weighting=inner)

        if weighting.due is None:
            return fresh(state.weighting)
        due, inner = weighting.due(state.weighting)
        return lax.cond(due, fresh, held, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def preference_or_uniform(preference: Any, active: jax.Array) -> jax.Array:
    """`preference` on the active tasks, not renormalised; None is 1/T_active."""
    if preference is None:
        count = jnp.maximum(jnp.sum(active), 1)
        return active / count.astype(jnp.result_type(float))
    given = checks.task_vector("preference", preference, active.shape[0])
    return jnp.where(active, given, 0)


def _like(updates: Any) -> Any:
    """A tree with the leaves of one task's gradients, or of the stack."""
    return updates.like() if isinstance(updates, LazyTaskGrads) else updates


def _chosen(leaves: Any, tree: Any) -> tuple[bool, ...] | None:
    """One bool for each leaf of the tree that the Gramian is taken over, or None."""
    kept = None if leaves is None else chosen(leaves, tree)
    if kept and not any(kept):
        raise ValueError(
            "leaves= names no leaf to take the Gramian over: it must be True on one or "
            f"more leaves of {jax.tree.structure(tree)}."
        )
    return kept


def _form_gramian(
    updates: Any,
    per_leaf: bool,
    kept: tuple[bool, ...] | None,
    mask: jax.Array | None,
) -> tuple[jax.Array, Any]:
    """The Gramian, and the gradients in the form that is cheapest to sum next."""
    if isinstance(updates, LazyTaskGrads):
        if updates.gramian is not None and not per_leaf and kept is None:
            return updates.gramian, updates
        if kept is not None and mask is None:
            return products.gramian(updates.select(kept)), updates
        updates = updates.rows()
    if per_leaf:
        return jnp.stack(products.leaf_gramians(updates)), updates
    if kept is None:
        return products.gramian(updates), updates
    if isinstance(updates, TaskRows):
        part: Any = TaskRows(tuple(only(tree, kept) for tree in updates.trees))
    else:
        part = only(updates, kept)
    return products.gramian(part), updates


def _weigh(
    weighting: Weighting,
    num_tasks: int,
    gramian: jax.Array | None,
    inner: Any,
    losses: jax.Array | None,
    mask: jax.Array | None,
    extra_args: dict[str, Any],
) -> tuple[jax.Array, jax.Array | None, Any]:
    """Weights, masked Gramian, and the weighting's new state."""
    active = jnp.ones(num_tasks, bool) if mask is None else mask
    if mask is not None and gramian is not None:
        gramian = jnp.where(mask[:, None] & mask[None, :], gramian, 0)
    if mask is not None and losses is not None:
        losses = jnp.where(mask, losses, 1)
    weights, inner = weighting.update(
        gramian, inner, losses=losses, active=active, **extra_args
    )
    return jnp.where(active, weights, 0), gramian, inner


@jax.jit
def zero_if_noise(
    weights: jax.Array,
    gramian: jax.Array,
    gradients: Any = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """The weights, or zeros where the update that they give is rounding noise.

    The Gramian tells a squared norm to within its own rounding only. Where that is not
    enough, and only there, the norm of the update itself decides.
    """
    noise = linalg.cancels(weights, gramian)
    if gradients is not None:

        def norm_is_noise() -> jax.Array:
            update = products.combine(gradients, weights, mask)
            floor = linalg.noise_floor(weights.shape[0], weights.dtype)
            apart = jnp.sum(weights**2 * jnp.diag(gramian))
            return products.squared_norm(update) <= floor**2 * apart

        noise = lax.cond(noise, norm_is_noise, lambda: jnp.asarray(False))
    return jnp.where(noise, 0, weights)
