r"""SAMO: perturbations of a common part and a cheap one of each task (Ban et al.).

ICCV 2025, arXiv 2507.07883; the order of steps is that of the authors' code (MIT, read;
only the formulas are taken). Where we differ: they divide by norms plus 1e-12, here a
part of norm zero is left out; their networks evaluate the two losses of a task's own
part in evaluation mode, here `losses_fn` is one and the same; their adaptive form, off
by default, is left out. Their script for QM9 does not perturb the heads, that for NYUv2
does not match norms (`variant="unmatched"`).

DERIVED: as the estimate :math:`\hat z_t` is a multiple of the draw :math:`z_t`, matched
norms leave nothing of it but that direction and the sign of the difference of losses.
"""

import itertools
import numbers
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.losses import loss_of
from mtl_optax.core.arguments.names import named
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.arguments.random import next_key, raw_key, standard_normals
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.chains.places import WRAPPER, inside, placed
from mtl_optax.core.chains.state_parts import check_keeps_no_optimiser
from mtl_optax.core.method import transformation_method
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.at_other_params import rows_at
from mtl_optax.core.task_grads.data_axis import local, mean_over
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.task_grads.losses_fn import asked
from mtl_optax.core.trees.leaves import chosen, only
from mtl_optax.core.uphill import Leaves, moved, norm, unit, wide
from mtl_optax.core.weighting import check_transformation
from mtl_optax.wrappers.on_shared import on_shared


class SAMOState(NamedTuple):
    """State of SAMO."""

    key: jax.Array  # raw key data, uint32
    inner: Any  # the aggregator's


@transformation_method
def samo(
    aggregator: optax.GradientTransformation,
    *,
    key: Any,
    rho: ScalarOrSchedule = 1e-3,
    beta: ScalarOrSchedule = 0.1,
    step: ScalarOrSchedule = 0.01,
    variant: str = "layerwise",
    shared: optax.Params | Callable[[optax.Params], Any] | None = None,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Flat minima for every task, uphill of the mean loss and a little of its own.

    .. math::
      d = \text{agg}(s_1 \ldots s_T), \quad
      s_t = \nabla L_t(\theta + \rho \, p_t / \|p_t\|)

    where on each shared leaf n, for :math:`\bar g = \nabla \tfrac1T \sum_t L_t` and a
    draw :math:`z_t \sim N(0, I)` over all shared leaves,

    .. math::
      p_t^n = (1 - \beta) \, \bar g^n
        + \beta \, \|\bar g^n\| \, \hat z_t^n / \|\hat z_t^n\|, \quad
      \hat z_t = \frac{L_t(\theta + \mu z_t) - L_t(\theta - \mu z_t)}{2 \mu} \, z_t

    A task-specific leaf moves along its owner's :math:`s_t`, without aggregation; it is
    perturbed by :math:`\rho` along its owner's gradient, over all such leaves together.

    Args:
      aggregator: any method of this library, for T tasks.
      key: int or key for the draws.
      rho: radius of the perturbation, of shared leaves and of each task's own; 0 is the
        plain method. The authors take 1e-3 to 3e-3, and 1e-5 for QM9.
      beta: share of the task's own part, in [0, 1]; their default, while their scripts
        run 0.5 and 0.9 (the paper's alpha is 1 minus it). 0 is SAM along the gradient
        of the mean loss, without draws and forward passes if it is Python's number 0.
      step: :math:`\mu`, how far the losses of a task's own part are from each other.
      variant: "layerwise" as above; "unmatched" has :math:`\beta \hat z_t` for the
        second term, as their code for NYUv2.
      shared: mask tree or callable, as in :func:`mtl_optax.on_shared`, which then
        applies the aggregator; None: every leaf is shared.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: losses and gradients elsewhere are averaged over
        it.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, of which
      one sum is pulled back. Its `update` needs `params` and `losses_fn=`, as in
      :func:`mtl_optax.flat_mtl`. The extra argument `normals=`, a tree of `[T, *param]`
      (read on shared leaves), gives the draws; other extra arguments go to the
      aggregator, `active` included: means are over the active tasks. Draws are made for
      all T tasks. Output scale: that of the aggregator. T=1 with a sum or mean and
      beta=0 gives SAM's gradient. Where the mean gradient is zero nothing is perturbed;
      one that cancels to rounding gives a direction like any other.

    Raises:
      ValueError: for a negative radius, `beta` outside [0, 1], a step that is not
        positive, or an unknown variant; in `update` if `params` or `losses_fn=` is
        missing or does not return T losses, for `normals=` of other shapes or with
        beta=0, or for gradients that are not stacked.

    Cost: T + 1 backward passes and 3T more forward passes with lazy gradients; as many
    random numbers as T copies of the shared parameters have; T copies of the gradient,
    and of the parameters at both ends and at the point, in so far as XLA lets them live
    at once; the aggregator's state and one key. With `beta=0` on shared leaves all
    tasks look from one point: 2 forward passes in place of 3T.

    Invariances: none to loss scales, but for those of the aggregator: the larger a loss
    the more the common part is its own.

    Guarantee: that of the aggregator, for the perturbed gradients.

    When not to use it: to save time over `flat_mtl`: two forward passes cost what one
    backward pass does, and T gradients at one point share their forward pass. Where
    each task's own part is to matter: in many dimensions a draw is nearly orthogonal to
    the gradient, whatever its sign. With a radius below the precision of the
    parameters: steps of 1e-3 vanish in bfloat16.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> losses_fn = lambda w: {"a": 0.5 * jnp.sum(w**2)}
      >>> params = jnp.array([3.0, 4.0])
      >>> tx = mtl.samo(mtl.mean(num_tasks=1), rho=1.0, beta=0, key=0)
      >>> losses, grads = mtl.lazy_task_grads(losses_fn)(params)
      >>> update, state = tx.update(grads, tx.init(params), params, losses_fn=losses_fn)
      >>> np.asarray(update).round(4)
      array([3.6, 4.8], dtype=float32)

    References:
      Ban et al., `SAMO: A Lightweight Sharpness-Aware Approach for Multi-Task
      Optimization with Joint Global-Local Perturbation
      <https://arxiv.org/abs/2507.07883>`_, 2025.
    """
    checks.at_least("rho", rho, 0)
    checks.at_least("beta", beta, 0)
    checks.at_most("beta", beta, 1)
    checks.positive("step", step)
    checks.one_of("variant", variant, ("layerwise", "unmatched"))
    check_transformation("samo", aggregator)
    inner = inside(aggregator, "samo")
    if shared is not None:
        inner = on_shared(inner, shared)
    first_key = raw_key(key)
    sam = isinstance(beta, numbers.Real) and beta == 0  # then nothing is drawn

    def init(params: optax.Params) -> SAMOState:
        state = inner.init(params)
        check_keeps_no_optimiser("samo", state, params)
        return SAMOState(jnp.copy(first_key), state)

    def update(
        updates: Any,
        state: SAMOState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        losses_fn: Callable[[optax.Params], Any] | None = None,
        normals: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SAMOState]:
        checks.required("samo", "params", params)
        given = as_task_grads(updates, None, params, losses=losses, active=active)
        if not jax.tree.leaves(given.like()):
            return given.stack(), state
        losses_at, given = asked("samo", losses_fn, given, params, extra_args)

        use, key = next_key(state.key)
        if sam:
            _no_draws(normals)
        kept = _shared_leaves(shared, params)
        common = _mean(given.select(kept))

        def uphill(task: int) -> Leaves:
            if sam:
                return common
            z = _draws(use, normals, params, kept, task, given.num_tasks)
            rise = _rise(losses_at, params, kept, z, step, task, axis_name)
            own = _own_part(rise, z, common, variant)
            return [(1 - beta) * g + beta * x for g, x in zip(common, own, strict=True)]

        points = _points(given, params, kept, rho, uphill)
        rows = rows_at(losses_at, points, axis_name)
        more = {
            "losses": named(given.losses, given.names),
            "active": named(given.active, given.names),
            "losses_fn": losses_fn,
            **extra_args,
        }
        new, inner_state = inner.update(rows, state.inner, params, **more)
        return new, SAMOState(key, inner_state)

    return placed(init, update, WRAPPER)


def _shared_leaves(shared: Any, params: optax.Params) -> tuple[bool, ...]:
    if shared is None:
        return (True,) * len(jax.tree.leaves(params))
    return chosen(shared, params, "shared=")


def _mean(gradients: TaskGrads) -> Leaves:
    """The gradient of the mean loss of the active tasks; one backward pass if lazy."""
    mask = gradients.active
    present = jnp.ones(gradients.num_tasks, bool) if mask is None else mask
    return wide(gradients.pull(preference_or_uniform(None, present)))


def _no_draws(given: Any) -> None:
    if given is not None:
        raise ValueError(
            "samo: normals= has no effect with beta=0, which draws nothing. Leave it "
            "out."
        )


def _draws(
    key: jax.Array, given: Any, params: Any, kept: tuple[bool, ...], task: int, of: int
) -> Leaves:
    """Normal numbers of one of so many tasks for each shared leaf."""
    leaves = jax.tree.leaves(only(params, kept))
    if given is None:
        keys = jax.random.split(jax.random.fold_in(key, task), len(leaves))
        return [standard_normals(k, p.shape) for k, p in zip(keys, leaves, strict=True)]
    trees: list[Any] = [jax.tree.structure(x) for x in (given, params)]
    found = [jnp.shape(z) for z in jax.tree.leaves(given)]
    wanted = [(of, *p.shape) for p in jax.tree.leaves(params)]
    if found != wanted or trees[0] != trees[1]:
        raise ValueError(
            f"samo: normals= must be a tree like the parameters with a row a task, of "
            f"shapes {wanted}; got {found}. Rows of leaves that are not shared are not "
            "read."
        )
    rows = [z[task] for z in jax.tree.leaves(given)]
    return wide(list(itertools.compress(rows, kept)))


def _rise(
    losses_at: Callable[[optax.Params], Any],
    params: optax.Params,
    kept: tuple[bool, ...],
    z: Leaves,
    step: Any,
    task: int,
    axis_name: Any,
) -> jax.Array:
    """Slope of a task's loss along z; 0 where it is not a number."""
    ends = [
        loss_of(losses_at(local(moved(params, kept, sign * step, z), axis_name)), task)
        for sign in (1, -1)
    ]
    plus, minus = mean_over(wide(ends), axis_name)
    slope = (plus - minus) / (2 * step)
    return jnp.where(jnp.isnan(slope), 0, slope)


def _own_part(slope: jax.Array, z: Leaves, common: Leaves, variant: str) -> Leaves:
    """The estimate of a task's gradient, each leaf as long as that of the mean's."""
    if variant == "unmatched":
        return [slope * x for x in z]
    pairs = zip(common, z, strict=True)
    return [jnp.sign(slope) * norm([g]) * unit([x])[0] for g, x in pairs]


def _points(
    given: TaskGrads,
    params: optax.Params,
    kept: tuple[bool, ...],
    rho: Any,
    uphill: Callable[[int], Leaves],
) -> Iterator[optax.Params]:
    """The parameters at which each task's gradient is asked for, one after the other.

    Those of an absent task are the parameters.
    """
    rest = tuple(not keep for keep in kept)
    for task in range(given.num_tasks):
        radius = rho if given.active is None else jnp.where(given.active[task], rho, 0)
        point = moved(params, kept, radius, unit(uphill(task)))
        if any(rest):
            own = unit(wide(given.select(rest).row(task)))
            point = moved(point, rest, radius, own)
        yield point
