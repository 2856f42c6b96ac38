"""Does training change if losses are measured in other units?

Elich et al. (2024, appendix A1.3): Adam divides a gradient by its own size, so a
constant factor on a loss leaves the steps of its head alone, but not those of the
trunk, which sees a sum, unless all factors are equal. (Their appendix has the trunk
invariant too if both betas are 0. It is not: the sign of a sum depends on the factors.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads
from mtl_optax.core.trees.leaves import chosen
from mtl_optax.from_losses.unitary import unitary
from mtl_optax.wrappers.per_task import per_task as each_task


class ScaleInvariance(NamedTuple):
    """How far S runs go, and how far from the first of them."""

    heads: jax.Array  # [S, N], departure of all heads together after each step
    trunk: jax.Array  # [S, N], of all shared leaves
    leaves: Any  # like the parameters, [S] each, after the last step
    displacement: Any  # like the parameters, [S, *shape] each: end minus start


def adam_scale_invariance(
    losses_fn: Callable[[Any, Any], Any],
    params: Any,
    scales: ArrayLike,
    batches: Any,
    *,
    shared: Any,
    optimizer: optax.GradientTransformation | None = None,
    method: optax.GradientTransformation | None = None,
    per_task: bool = False,
    frozen: bool = False,
    opt_state: Any = None,
) -> ScaleInvariance:
    r"""Trains once for each scaling of the losses, and says how far the runs depart.

    .. math::
      \theta^s_{k+1} = \theta^s_k + \text{optimizer}\Big(\sum_t
      \alpha^s_t \, \nabla L_t(\theta^s_k)\Big), \quad
      \text{departure}^s_k = \frac{\|\theta^s_k - \theta^1_k\|}
      {\|\theta^1_k - \theta_0\|}

    Under Adam heads depart by rounding only, if (a) each factor is constant, (b)
    moments start at zero, (c) epsilon is 0 or far below the gradients, (d) a head gets
    the gradient of one task, (e) the trunk is frozen, (f) nothing else sees the size of
    a gradient, as a coupled L2 penalty or clipping by the global norm does. With one
    Adam for each task, or weights 1 / loss, (e) is not needed.

    Args:
      losses_fn: `losses_fn(params, batch)` gives T losses, as for
        :func:`mtl_optax.task_grads`.
      params: where all runs start, a tree of floating arrays.
      scales: the factors :math:`\alpha`, above 0: `[S, T]`, or `[S, N, T]` for ones
        that change from step to step (a). Tasks in the order of `losses_fn` (sorted
        names of a dict). The first run is the one that others are compared with.
      batches: tree of arrays `[N, ...]`, one entry a step; `jnp.arange(N)` for losses
        that take no data.
      shared: tree of bools like the parameters (or a prefix of it), True on the trunk;
        or a function from parameters to one (d).
      optimizer: any of optax, for the sum of gradients; None: `optax.adam(1e-3)`. Here
        stand epsilon (c), betas, and in an `optax.chain` what comes before Adam (f).
      method: what combines the tasks, in place of `mtl_optax.unitary`, the plain sum.
      per_task: whether each task has an optimiser of its own, as in
        :func:`mtl_optax.per_task`, whose steps are combined by `method`.
      frozen: whether the trunk stays where it is (e).
      opt_state: of the optimiser (with `per_task` of `mtl_optax.per_task` around it),
        where all runs start; None for its `init`: for Adam moments of zero (b).

    Returns:
      A `ScaleInvariance`. A departure is 0 while neither run has moved,
      infinite if only the other one has, and NaN once one is. Adam is, with an
      epsilon of 0 where a gradient is exactly 0, as with `per_task` in heads of other
      tasks. Give it 1e-30.

    Raises:
      ValueError: unless `scales` are two or more runs of T positive numbers, with as
        many steps as `batches`; for a mask that does not fit the parameters.

    Cost: S trainings of N steps side by side, by `jax.vmap`; nothing of a step is kept
    but 2 S numbers.

    When not to use it: in float32, or over long runs, to tell "the same" from "nearly
    the same": rounding grows along the way, faster where losses have kinks.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from mtl_optax.analysis.adam_scale import adam_scale_invariance
      >>> def losses_fn(params, batch):
      ...     features = batch * params["trunk"]
      ...     return {t: jnp.abs(params[t] * features - 1) for t in ("a", "b")}
      >>> params = {"trunk": jnp.ones(()), "a": jnp.zeros(()), "b": jnp.zeros(())}
      >>> found = adam_scale_invariance(
      ...     *(losses_fn, params, [[1.0, 1.0], [10.0, 1.0]], jnp.ones(8)),
      ...     shared={"trunk": True, "a": False, "b": False},
      ...     optimizer=optax.adam(0.1, eps=0.0),
      ...     frozen=True,
      ... )
      >>> found.heads.shape, bool(found.heads.max() < 1e-5)
      ((2, 8), True)

    References:
      Elich et al., `Examining Common Paradigms in Multi-task Learning
      <https://arxiv.org/abs/2311.04698>`_, 2024. Yang et al., `AdaTask
      <https://arxiv.org/abs/2211.15055>`_, 2023 (one Adam for each task).
    """
    num_tasks, alphas = _checked(scales, {len(x) for x in jax.tree.leaves(batches)})
    optimizer = optax.with_extra_args_support(optimizer or optax.adam(1e-3))
    combine = optax.with_extra_args_support(method or unitary(num_tasks))
    pair = (each_task(optimizer, num_tasks), combine)
    first, last = pair if per_task else (combine, optimizer)
    params = jax.tree.map(jnp.asarray, params)
    kinds = chosen(shared, params, "shared=")  # a bool a leaf: in the trunk
    structure = jax.tree.structure(params)
    none = jnp.zeros(alphas.shape[1])

    def step(params: Any, states: Any, alpha: jax.Array, batch: Any) -> Any:
        def scaled(params: Any) -> Any:
            return _times(losses_fn(params, batch), alpha)

        losses, updates = lazy_task_grads(scaled)(params)
        extra = {"losses": losses, "losses_fn": scaled}
        before, after = states
        updates, before = first.update(updates, before, params, **extra)
        updates, after = last.update(updates, after, params, **extra)
        if frozen:
            held = zip(jax.tree.leaves(updates), kinds, strict=True)
            kept = [jnp.zeros_like(x) if is_held else x for x, is_held in held]
            updates = jax.tree.unflatten(structure, kept)
        return optax.apply_updates(params, updates), (before, after)

    def body(carry: Any, at: Any) -> Any:
        now, states = jax.vmap(step, in_axes=(0, 0, 0, None))(*carry, *at)
        squares = [jax.tree.leaves(x) for x in _squares(now, params)]

        def departure(kind: bool) -> jax.Array:
            totals = [
                sum((x for x, k in zip(own, kinds, strict=True) if k == kind), none)
                for own in squares
            ]
            return _ratio(*totals)

        return (now, states), (departure(False), departure(True))

    states = [first.init(params), last.init(params)]
    if opt_state is not None:
        states[0 if per_task else 1] = opt_state
    starts = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (alphas.shape[1], *jnp.shape(x))),
        (params, tuple(states)),
    )
    (ends, _), (heads, trunk) = jax.lax.scan(body, starts, (alphas, batches))
    apart, gone = _squares(ends, params)
    return ScaleInvariance(
        heads=heads.T,
        trunk=trunk.T,
        leaves=jax.tree.map(_ratio, apart, gone),
        displacement=jax.tree.map(lambda x, start: x - start[None], ends, params),
    )


def _checked(scales: ArrayLike, steps: set[int]) -> tuple[int, jax.Array]:
    """T, and the factors `[N, S, T]`."""
    found = jnp.asarray(scales, float)
    if found.ndim == 2 and len(steps) == 1:
        found = jnp.repeat(found[:, None], min(steps), axis=1)
    if found.ndim != 3 or len(found) < 2 or {found.shape[1]} != steps:
        raise ValueError(
            "adam_scale_invariance: scales are [S, T], or [S, N, T] for N steps, with "
            "two or more runs S, and every array of batches has one entry a step; got "
            f"scales {list(np.shape(scales))}, and batches of length {sorted(steps)}."
        )
    if not isinstance(found, jax.core.Tracer) and not bool((found > 0).all()):
        raise ValueError("adam_scale_invariance: each scale must be above 0.")
    return found.shape[-1], jnp.moveaxis(found, 1, 0)


def _times(losses: Any, alpha: jax.Array) -> Any:
    if isinstance(losses, jax.Array) and losses.ndim:
        return losses * alpha
    leaves, structure = jax.tree.flatten(losses)
    if len(leaves) != len(alpha):
        raise ValueError(
            f"adam_scale_invariance: scales are of {len(alpha)} tasks, and losses_fn "
            f"gives {len(leaves)} losses. Give one factor a task."
        )
    pairs = zip(leaves, alpha, strict=True)
    return jax.tree.unflatten(structure, [x * a.astype(x.dtype) for x, a in pairs])


def _squares(now: Any, start: Any) -> tuple[Any, Any]:
    """Of each leaf: the square of each run's distance from the first; of its way."""

    def square(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim)))

    apart = jax.tree.map(lambda x: square(x - x[:1]), now)
    return apart, jax.tree.map(lambda x, y: square(x[:1] - y[None]), now, start)


def _ratio(apart: jax.Array, gone: jax.Array) -> jax.Array:
    """Of the roots; 0 where there is no distance."""
    some = apart != 0  # NaN too
    return jnp.where(some, jnp.sqrt(apart / jnp.where(some, gone, 1)), 0.0)
