"""F-MTL: multi-task learning in flat regions, one perturbation a task (Phan et al.).

Algorithm 1 of arXiv 2211.13723, whose ICCV version is called "Beyond Losses
Reweighting". The authors divide by norms plus 1e-12; here a gradient of norm zero is
not perturbed. Their Multi-MNIST code takes one norm over shared parameters and own head
(`norm="joint"`), their other code and the paper two (`norm="separate"`).
"""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import named
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.chains.state_parts import check_keeps_no_optimiser
from mtl_optax.core.method import transformation_method
from mtl_optax.core.stacked import task_norms
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.at_other_params import task_grads_at
from mtl_optax.core.task_grads.losses_fn import asked
from mtl_optax.core.trees.leaves import chosen
from mtl_optax.core.trees.task_axis import lead
from mtl_optax.core.weighting import check_transformation
from mtl_optax.wrappers.on_shared import on_shared


class FlatMTLState(NamedTuple):
    """State of F-MTL: the aggregator's, once for each part."""

    loss_part: Any  # on the plain gradients ("split") or the perturbed ones ("direct")
    flat_part: Any  # on perturbed minus plain gradients; None with "direct"


@transformation_method
def flat_mtl(
    aggregator: optax.GradientTransformation,
    *,
    rho_shared: ScalarOrSchedule,
    rho_specific: ScalarOrSchedule = None,
    adaptive: bool = False,
    norm: str = "separate",
    mode: str = "split",
    shared: optax.Params | Callable[[optax.Params], Any] | None = None,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Flat minima for every task: each looks uphill of its own loss before the step.

    .. math::
      s_t = \nabla L_t(\theta + \epsilon_t), \quad
      \epsilon_t = \rho \, g_t / \|g_t\|, \quad
      d = \text{agg}(g_1 \ldots g_T) + \text{agg}(s_1 - g_1, \ldots, s_T - g_T)

    A task-specific leaf moves along its owner's perturbed gradient :math:`s_t`, without
    aggregation.

    Args:
      aggregator: any method of this library, for T tasks.
      rho_shared: radius of the perturbation on shared leaves; may be a tracer; 0 is
        the plain method.
      rho_specific: radius on the other leaves; None is `rho_shared`.
      adaptive: whether each coordinate's perturbation is scaled by the parameter
        (ASAM): :math:`\epsilon = \rho \, \theta^2 g / \| |\theta| g \|`.
      norm: "separate" measures a task's gradient on shared and on specific leaves, each
        with its radius; "joint" over all leaves at once, with `rho_shared`.
      mode: "split" as above; "direct", an ablation, aggregates the :math:`s_t`. Both
        are the same for linear aggregators.
      shared: mask tree or callable, as in :func:`mtl_optax.on_shared`, which then
        applies the aggregator; None: every leaf is shared.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: perturbed gradients are averaged over it.

    Returns:
      A transformation of stacked task gradients `[T, *param]` (lazy ones are stacked).
      Its `update` needs `params`, and `losses_fn=`, which gives the losses of the same
      batch (a dict or tuple of scalars, or an array `[T]`) at other parameters:
      `losses_fn=lambda p: losses_fn(p, x, y)`, made inside the jitted step, since a
      function is no argument of `jax.jit`; without auxiliary output, `lambda p:
      losses_fn(p, x)[0]`: batch statistics belong to the unperturbed pass. All extra
      arguments go to the aggregator, `active` included. Output scale: that of the
      aggregator; T=1 with a sum or mean gives SAM's gradient. Weights and conflicts of
      both parts are read by `mtl.task_weights(state.loss_part)` and `state.flat_part`.

    Raises:
      ValueError: for negative radii, an unknown option, or `rho_specific` with a joint
        norm; in `update` if `params` or `losses_fn=` is missing or does not return T
        losses, or for gradients that are not stacked.

    Cost: 2T backward passes and T more forward passes; T copies of parameters and of
    both gradients; twice the aggregator's state.

    Invariances: none to loss scales, but for those of the aggregator: the perturbations
    do not depend on them.

    Guarantee: that of the aggregator, for each of both parts, not for their sum.

    When not to use it: where a step must not take twice as long; where gradients are
    noise, whose direction the perturbation follows.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> def losses_fn(w):
      ...     a = 0.5 * (w[0] ** 2 + 4 * w[1] ** 2)
      ...     return {"a": a, "b": 0.5 * (w[0] + w[1]) ** 2}
      >>> params = jnp.array([1.0, 0.0])
      >>> tx = mtl.flat_mtl(mtl.unitary(num_tasks=2), rho_shared=0.1)
      >>> losses, grads = mtl.task_grads(losses_fn)(params)
      >>> update, state = tx.update(
      ...     *(grads, tx.init(params), params),
      ...     losses=losses,
      ...     losses_fn=losses_fn,
      ... )
      >>> np.asarray(update).round(4)
      array([2.2414, 1.1414], dtype=float32)

    References:
      Phan et al., `Improving Multi-task Learning via Seeking Task-based Flat Regions
      <https://arxiv.org/abs/2211.13723>`_, 2022. Foret et al., `Sharpness-Aware
      Minimization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """
    checks.one_of("norm", norm, ("separate", "joint"))
    checks.one_of("mode", mode, ("split", "direct"))
    checks.at_least("rho_shared", rho_shared, 0)
    checks.at_least("rho_specific", rho_specific, 0)
    if norm == "joint" and rho_specific is not None:
        raise ValueError(
            'flat_mtl: norm="joint" has one radius for all leaves, rho_shared; leave '
            'rho_specific out, or use norm="separate".'
        )
    rho_specific = rho_shared if rho_specific is None else rho_specific
    check_transformation("flat_mtl", aggregator)
    inner = inside(aggregator, "flat_mtl")
    if shared is not None:
        inner = on_shared(inner, shared)

    def init(params: optax.Params) -> FlatMTLState:
        flat_part = inner.init(params) if mode == "split" else None
        loss_part = inner.init(params)
        check_keeps_no_optimiser("flat_mtl", loss_part, params)
        return FlatMTLState(loss_part, flat_part)

    def update(
        updates: Any,
        state: FlatMTLState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        losses_fn: Callable[[optax.Params], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, FlatMTLState]:
        checks.required("flat_mtl", "params", params)
        given = as_task_grads(updates, None, params, losses=losses, active=active)
        if not jax.tree.leaves(given.like()):
            return given.stack(), state
        losses_at, given = asked("flat_mtl", losses_fn, given, params, extra_args)
        plain, mask = given.stack(), given.active

        groups = _groups(params, shared, norm)
        radii = {True: rho_shared, False: rho_specific}
        there, moved = _perturbed(plain, params, groups, radii, adaptive, mask)
        perturbed = task_grads_at(losses_at, axis_name=axis_name)(there)
        more = {
            "losses": named(given.losses, given.names),
            "active": named(mask, given.names),
            "losses_fn": losses_fn,
            **extra_args,
        }

        def aggregate(gradients: Any, state: Any) -> Any:
            return inner.update(gradients, state, params, **more)

        if mode == "direct":
            new, loss_part = aggregate(perturbed, state.loss_part)
            return new, FlatMTLState(loss_part, None)
        # A gradient asked for twice differs in rounding, which a method that is blind
        # to scale would take for a direction.
        flat = jax.tree.map(
            lambda s, g: jnp.where(lead(moved, s), s - g, 0), perturbed, plain
        )
        new, loss_part = aggregate(plain, state.loss_part)
        flatter, flat_part = aggregate(flat, state.flat_part)
        return optax.tree.add(new, flatter), FlatMTLState(loss_part, flat_part)

    return placed(init, update, WRAPPER)


def _groups(params: optax.Params, shared: Any, norm: str) -> list[bool]:
    """For each leaf whether it counts as shared in norm and radius."""
    if shared is None or norm == "joint":
        return [True] * len(jax.tree.leaves(params))
    return list(chosen(shared, params, "shared="))


def _perturbed(
    gradients: Any,
    params: Any,
    groups: list[bool],
    radii: dict[bool, Any],
    adaptive: bool,
    active: jax.Array | None,
) -> tuple[Any, jax.Array]:
    """Parameters `[T, *param]` uphill of each task, and which tasks moved `[T]`."""
    leaves, treedef = jax.tree.flatten(params)
    wide = [g.astype(jnp.result_type(float)) for g in jax.tree.leaves(gradients)]
    sizes = [jnp.abs(p)[None] if adaptive else jnp.ones((), p.dtype) for p in leaves]
    scaled = [g * size for g, size in zip(wide, sizes, strict=True)]
    lengths = {}
    for group in set(groups):
        own = [x for x, g in zip(scaled, groups, strict=True) if g == group]
        norm = task_norms(own)
        length = jnp.asarray(radii[group]) / jnp.where(norm > 0, norm, 1)
        moves = (norm > 0) if active is None else (norm > 0) & active
        lengths[group] = jnp.where(moves, length, 0)
    there = [
        p[None] + jnp.where(lead(lengths[g] > 0, x), lead(lengths[g], x) * x * size, 0)
        for p, x, size, g in zip(leaves, scaled, sizes, groups, strict=True)
    ]
    there = [x.astype(p.dtype) for x, p in zip(there, leaves, strict=True)]
    moved = reduce(operator.or_, [length > 0 for length in lengths.values()])
    return jax.tree.unflatten(treedef, there), moved
