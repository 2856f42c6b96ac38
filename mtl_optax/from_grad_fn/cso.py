r"""CSO: connection strength-based optimisation (Jeong & Yoon 2024).

Both phases of the paper's algorithm. Which one runs is drawn anew for each update, as
in the authors' example; the paper draws once an epoch. Where their code leaves a layer
as it is in the second phase, see `cso_project`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.leaf_groups import names_of_all, owned, owners
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.chains.places import placed
from mtl_optax.core.group_steps import by_owner, look_at, standing, take_step
from mtl_optax.core.method import transformation_method
from mtl_optax.core.state_guard import check_keys, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.at_other_params import group_grads_at
from mtl_optax.core.task_grads.losses_fn import asked
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import ByTask
from mtl_optax.from_gradients.cso_project import cso_project

_Place = tuple[Any, Any]  # displacement so far, states of the optimiser


class CSOState(NamedTuple):
    """State of CSO."""

    phase: jax.Array  # [] int32, 1 or 2, of the last update; 0 before the first
    key: jax.Array  # raw key data, uint32
    inner: ByTask  # optax.PartitionState: "shared", and each task's own by its index

    @property
    def contains_optimizer(self) -> bool:
        """Tells check_chain that updates are displacements, no gradients."""
        return True


def _first_tasks(strengths: Any, active: jax.Array) -> Any:
    """On each channel the active task of the largest strength, of equal ones the first.

    None for leaves without strengths.
    """

    def first(strength: Any) -> Any:
        if strength is None:
            return None
        rows = jnp.asarray(strength)
        if rows.ndim != 2 or rows.shape[0] != active.shape[0]:
            raise ValueError(
                "cso: strength_fn must give, for a leaf [..., C], strengths of shape "
                f"({active.shape[0]}, C), one row a task, or None for the plain sum; "
                f"got shape {rows.shape}."
            )
        present = jnp.where(active[:, None], rows, -jnp.inf)
        return jnp.argmax(present, axis=0).astype(jnp.int32)

    return jax.tree.map(first, strengths, is_leaf=lambda x: x is None)


def _turns(
    step: Callable[..., _Place],
    ask: Callable[..., Any],
    params: Any,
    present: jax.Array,
    place: _Place,
) -> _Place:
    """A step of each task that is present, each where the one before it ended."""
    tasks = jnp.arange(present.shape[0], dtype=jnp.int32)

    def turn(place: _Place, task: jax.Array) -> _Place:
        alone = tasks == task
        there, _, gradient = look_at(ask, params, place[0], alone)
        return step((there, *place), gradient, alone)

    def slot(place: _Place, task: jax.Array) -> tuple[_Place, None]:
        return lax.cond(present[task], turn, lambda place, _: place, place, task), None

    return lax.scan(slot, place, tasks)[0]


@transformation_method
def cso(
    num_tasks: int,
    inner: optax.GradientTransformation,
    *,
    strength_fn: Callable[[Any, Any], Any],
    total_epochs: ScalarOrSchedule,
    key: Any,
    owner: Any = None,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lets tasks take turns until channels have a first task, which they then respect.

    .. math::
      \text{phase 1: } \theta \leftarrow \theta + \text{inner}(\nabla L_t(\theta))
      \text{ for each } t \text{ in turn}, \quad
      \text{phase 2: } \theta \leftarrow \theta + \text{inner}\Big( \sum_t h_t \Big)

    In epoch e of E phase 2 has probability e/E. Its gradients :math:`h_t` are those of
    :func:`mtl_optax.cso_project`, where the first task of a channel is the one with the
    largest strength.

    Args:
      num_tasks: T, a Python int.
      inner: the optimiser, for example `optax.adam(1e-3)`.
      strength_fn: `strength_fn(params, statistics)` gives strengths `[T, C]` for a leaf
        `[..., C]`, or None for the plain sum: a tree like the parameters or a prefix.
        :func:`mtl_optax.connection_strength` computes the paper's, for a layer followed
        by :class:`mtl_optax.nn.TaskBatchNorm`. It is called at the parameters before
        the update.
      total_epochs: E; may be a tracer.
      key: int or key for the draws.
      owner: the task that owns each leaf, by name or by index in sorted order of names,
        or None where all share it: a tree like the parameters, a prefix, or a function
        of them. What a task owns rests, with the state of the optimiser, in the other
        tasks' turns. None: all leaves are shared, and an optimiser with momentum moves
        heads in every turn.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: losses and gradients at moved parameters are
        averaged over it.

    Returns:
      A transformation whose updates are the total displacement of all steps: only what
      acts on displacements may follow, such as `optax.scale`, and no second optimiser
      such as Adam (:func:`mtl_optax.check_chain` tells). Its `update` needs `params`,
      `epoch=` (from 0; may be traced), and `losses_fn=`, which gives the losses of this
      batch (a dict or tuple of scalars, or an array `[T]`) at moved parameters:
      `losses_fn=lambda p: losses_fn(p, x, y)`, made inside the jitted step, since a
      function is no argument of `jax.jit`; without auxiliary output, `lambda p:
      losses_fn(p, x)[0]`. Phase 1 uses that, phase 2 the incoming stacked or lazy
      gradients, of which lazy ones then cost nothing in phase 1. Extra arguments:
      `statistics=`, handed to
      `strength_fn`; `active` `[T]` bool (inactive tasks: no turn, no strength, own
      leaves frozen); `uniform=`, a number to use instead of the draw: phase 1 if it is
      at least e/E. Others go to `inner`. Output scale: sum of T steps of `inner`, or
      one on the sum. T=1 gives one step.

    Raises:
      ValueError: if `total_epochs` is not positive, or labels in `owner` are neither
        None nor a task; in `update` if `params`, `epoch=` or `losses_fn=` is missing or
        does not return T losses, for strengths that are not `[T, C]`, or gradients that
        are not stacked.

    Cost: T backward passes in either phase; in phase 1 as many forward passes, one
    after the other; state of `inner`.

    Invariances: none to loss scales, but for those of `inner`.

    Guarantee: none in phase 1; for the gradient of phase 2 that of `cso_project`.

    When not to use it: with shared layers that no normalisation of each task's own
    follows, which have no strengths; where tasks do not see all data: priorities follow
    from the running variances of each.

    Example:
      >>> import jax, jax.numpy as jnp, optax, mtl_optax as mtl
      >>> def losses_fn(p):
      ...     x = jnp.ones(2) @ p["kernel"]
      ...     a, b = p["gamma"][0] * x, p["gamma"][1] * x
      ...     return {"a": jnp.sum((a - 1) ** 2), "b": jnp.sum((b - 4) ** 2)}
      >>> def strength_fn(p, variances):
      ...     strength = mtl.connection_strength(p["kernel"], p["gamma"], variances)
      ...     return {"kernel": strength, "gamma": None}
      >>> params = {
      ...     "kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]),
      ...     "gamma": jnp.array([[1.0, 1.0], [2.0, 0.5]]),
      ... }
      >>> tx = mtl.cso(
      ...     2, optax.sgd(0.01), strength_fn=strength_fn, total_epochs=10, key=0
      ... )
      >>> _, grads = mtl.lazy_task_grads(losses_fn)(params)
      >>> update, state = tx.update(
      ...     *(grads, tx.init(params), params),
      ...     losses_fn=losses_fn,
      ...     statistics=jnp.ones((2, 2)),
      ...     epoch=4,
      ...     uniform=0.3,
      ... )
      >>> int(state.phase), update["kernel"]
      (2, Array([[ 0.08, -0.02],
             [ 0.08, -0.02]], dtype=float32))

    References:
      Jeong & Yoon, `Quantifying Task Priority for Multi-Task Optimization
      <https://arxiv.org/abs/2406.02996>`_, 2024.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.positive("total_epochs", total_epochs)
    first_key = raw_key(key)

    def init(params: optax.Params) -> CSOState:
        check_params("tx.init", params)
        of_leaf = owners(owner, params, num_tasks)
        return CSOState(
            phase=replicated_zeros((), params).astype(jnp.int32),
            key=jnp.copy(first_key),
            inner=by_owner(inner, of_leaf, params).init(params),
        )

    def update(
        updates: Any,
        state: CSOState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        losses_fn: Callable[[optax.Params], Any] | None = None,
        epoch: Any = None,
        statistics: Any = None,
        uniform: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CSOState]:
        checks.required("cso", "params", params)
        checks.only_taken(extra_args, ())
        part_done = checks.required("cso", "epoch", epoch) / total_epochs
        owns = owners(owner, params, num_tasks)
        about = {"losses": losses, "active": active}
        known = names_of_all(owns, num_tasks)
        given = as_task_grads(updates, num_tasks, params, names=known, **about)
        losses_at, given = asked("cso", losses_fn, given, params, extra_args)
        mask, like = given.active, given.like()
        if not jax.tree.leaves(like):
            return like, state
        wanted = jax.eval_shape(init, params)
        check_keys(state.inner.inner_states, wanted.inner.inner_states)
        check_state(state, wanted, num_tasks)
        ask = partial(group_grads_at(losses_at, axis_name=axis_name), active=mask)

        present = jnp.ones(num_tasks, bool) if mask is None else mask
        of_leaf = owned(owns, given.names, num_tasks)
        parts = by_owner(inner, owns, params)
        step = partial(take_step, parts, of_leaf, extra_args=extra_args)

        def together(place: _Place) -> _Place:
            first = _first_tasks(strength_fn(params, statistics), present)
            project = cso_project(num_tasks, first).update
            gradient, _ = project(updates, (), params, active=mask)
            return step((params, *place), gradient, present)

        use, keep = next_key(state.key)
        draw = jax.random.uniform(use) if uniform is None else uniform
        phase = jnp.where(draw >= part_done, 1, 2).astype(jnp.int32)
        phase = jnp.where(jnp.any(present), phase, 0)
        place = standing(params), state.inner
        turns = partial(_turns, step, ask, params, present)
        phases = (lambda place: place), turns, together
        moved, states = lax.switch(phase, phases, place)
        new = CSOState(jnp.where(phase > 0, phase, state.phase), keep, states)
        return jax.tree.map(lambda d, p: d.astype(p.dtype), moved, params), new

    return placed(init, update)
