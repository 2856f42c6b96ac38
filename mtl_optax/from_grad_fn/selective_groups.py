"""Selective Task Group Updates: tasks that help one another step together.

Jeong & Yoon, arXiv 2502.11986, after its abstract and the authors' code; the formal
definition of affinity is INFERRED from those. Their code credits the change of the
losses to the group that is about to step, not to the one that stepped
(`credit="official"`), tries affinity propagation up to ten times where it does not
converge, and counts a learning-rate schedule in batches, not in steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.leaf_groups import names_of_all, owned, owners
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.chains.places import placed
from mtl_optax.core.group_steps import by_owner, group_steps
from mtl_optax.core.method import transformation_method
from mtl_optax.core.solvers.proximal_affinity import affinity_groups
from mtl_optax.core.state_guard import check_keys, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.at_other_params import group_grads_at
from mtl_optax.core.task_grads.losses_fn import asked
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import ByTask, TaskIndices, TaskPairs, TaskRows


class SelectiveGroupsState(NamedTuple):
    """State of Selective Task Group Updates."""

    affinity: TaskPairs  # [T, T] of source (row) on recipient
    groups: TaskIndices  # [T] int32 of the last update, equal for tasks of one group
    losses: TaskRows  # [T] before the last update
    step: TaskRows  # [T] int32, updates in which each task took part
    key: jax.Array  # raw key data, uint32
    inner: ByTask  # optax.PartitionState: "shared", and each task's own by its index

    @property
    def contains_optimizer(self) -> bool:
        """Tells check_chain that updates are displacements, no gradients."""
        return True


@transformation_method
def selective_groups(
    num_tasks: int,
    inner: optax.GradientTransformation,
    *,
    owner: Any,
    decay: ScalarOrSchedule = 1e-3,
    warmup: ScalarOrSchedule = 100,
    preference: PerTask = None,
    credit: str = "causal",
    key: Any,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""One optimiser step for each group of tasks, one after the other on one batch.

    .. math::
      \theta \leftarrow \theta + \text{inner} \Big( \nabla \sum_{t \in G} L_t(\theta)
      \Big) \quad \text{for each group } G \text{, in random order}

    A step moves the shared leaves and those that tasks of the group own. How it changed
    every loss is averaged into the affinity, which gives the groups of later batches,
    see :mod:`mtl_optax.core.solvers.proximal_affinity`.

    Args:
      num_tasks: T, a Python int.
      inner: the optimiser, for example `optax.adam(1e-3)`. It runs, as in
        `optax.partition`, on the shared leaves and on each task's own leaves apart,
        with a state each: those of the other groups freeze, moments and step counts. On
        shared leaves counts and schedules advance at every group's step.
      owner: tree like the parameters, a prefix, or a function of them: None on leaves
        that all tasks share, elsewhere the task that owns the leaf, by name, or by
        index in sorted order of names.
      decay: weight of each new measurement in the affinity; may be a tracer.
      warmup: updates in which a task takes part before it is grouped; until then it is
        a group of its own.
      preference: similarity of each task with itself, a number, or `[T]` in sorted
        order of names or a dict by name, on the scale where every task's
        affinity for itself is 1; more groups for a larger one. None is the median of
        all similarities, which never merges two tasks where T=2, and is often a tie for
        T=3.
      credit: "causal" credits a change to the group whose step made it; "official" to
        the next group, and to none the last one's, as the authors' code does. Where
        there is but one group, that code (and this) takes its step twice.
      key: int or key for the order of the groups.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: losses and gradients at moved parameters are
        averaged over it.

    Returns:
      A transformation whose updates are the total displacement of all steps: only what
      acts on displacements may follow, such as `optax.scale`, and no second optimiser
      such as Adam (:func:`mtl_optax.check_chain` tells). Its `update` needs `params`,
      and `losses_fn=`, which gives the losses of this batch (a dict or tuple of
      scalars, or an array `[T]`) at moved parameters: `losses_fn=lambda p:
      losses_fn(p, x, y)`, made inside the jitted step, since a function is no argument
      of `jax.jit`; without auxiliary output, `lambda p: losses_fn(p, x)[0]`. The
      incoming stacked or lazy gradients are checked, not used; under `jit` lazy ones
      cost nothing. Extra arguments:
      `active` `[T]` bool (inactive tasks: no group, own leaves frozen, affinity kept),
      and `order=` `[T]` int, a permutation, instead of drawing it. Others go to
      `inner`. Output scale: sum of as many steps of `inner` as there are groups. T=1
      gives the one step ("official": both).

    Raises:
      ValueError: for an unknown `credit`, negative `decay` or `warmup`, or labels in
        `owner` that are neither None nor a task; in `update` if `params` or
        `losses_fn=` is missing or does not return T losses, or for gradients that are
        not stacked.

    Cost: one forward and one backward pass for each group, T in the warm-up; one more
    forward pass with "causal"; state of `inner` and T x T numbers; up to 200 rounds of
    messages between tasks. Under `jax.vmap` empty groups are computed too, and dropped.

    Invariances: none to loss scales, but for those of `inner`; affinities, and with
    them the groups, do not depend on them.

    Guarantee: none; with plain SGD and one group it is the step on the sum, with T
    groups T steps of incremental gradient descent.

    When not to use it: where a batch must not cost several passes; with two or three
    tasks, unless `preference` is set; with losses that may be zero or negative, whose
    affinity is not defined (not measured there); to clip by the norm over all leaves,
    of which `inner` sees the shared ones and each task's own apart.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> def losses_fn(p):
      ...     return {"a": (p["w"] - p["a"]) ** 2, "b": (p["w"] + p["b"]) ** 2}
      >>> params = {"w": jnp.array(1.0), "a": jnp.array(0.0), "b": jnp.array(1.0)}
      >>> owner = {"w": None, "a": 0, "b": 1}
      >>> tx = mtl.selective_groups(2, optax.sgd(0.1), owner=owner, key=0)
      >>> losses, grads = mtl.lazy_task_grads(losses_fn)(params)
      >>> update, state = tx.update(
      ...     *(grads, tx.init(params), params),
      ...     losses_fn=losses_fn,
      ...     order=jnp.array([0, 1]),
      ... )
      >>> {name: round(float(x), 3) for name, x in update.items()}
      {'a': 0.2, 'b': -0.36, 'w': -0.56}

    References:
      Jeong & Yoon, `Selective Task Group Updates for Multi-Task Optimization
      <https://arxiv.org/abs/2502.11986>`_, 2025.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.one_of("credit", credit, ("causal", "official"))
    checks.at_least("decay", decay, 0)
    checks.at_least("warmup", warmup, 0)
    causal, first_key = credit == "causal", raw_key(key)

    def init(params: optax.Params) -> SelectiveGroupsState:
        check_params("tx.init", params)
        vector = replicated_zeros((num_tasks,), params)
        return SelectiveGroupsState(
            affinity=replicated_zeros((num_tasks, num_tasks), params),
            groups=vector.astype(jnp.int32) + jnp.arange(num_tasks, dtype=jnp.int32),
            losses=vector,
            step=vector.astype(jnp.int32),
            key=jnp.copy(first_key),
            inner=by_owner(inner, owners(owner, params, num_tasks), params).init(
                params
            ),
        )

    def update(
        updates: Any,
        state: SelectiveGroupsState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        losses_fn: Callable[[optax.Params], Any] | None = None,
        order: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SelectiveGroupsState]:
        checks.required("selective_groups", "params", params)
        checks.only_taken(extra_args, ())
        owns = owners(owner, params, num_tasks)
        about = {"losses": losses, "active": active}
        known = names_of_all(owns, num_tasks)
        given = as_task_grads(updates, num_tasks, params, names=known, **about)
        losses_at, given = asked(
            "selective_groups", losses_fn, given, params, extra_args
        )
        mask, like = given.active, given.like()
        active = jnp.ones(num_tasks, bool) if mask is None else mask
        if not jax.tree.leaves(like):
            return like, state
        wanted = jax.eval_shape(init, params)
        check_keys(state.inner.inner_states, wanted.inner.inner_states)
        check_state(state, wanted, num_tasks)
        ask = partial(group_grads_at(losses_at, axis_name=axis_name), active=mask)

        use, keep = next_key(state.key)
        if order is None:
            order = jax.random.permutation(use, num_tasks)
        order = jnp.asarray(order, jnp.int32)
        ready = active & (state.step >= warmup)
        groups = affinity_groups(state.affinity, preference, ready, state.groups)
        labels = _first_active(groups, active)
        if not causal:
            order = jnp.append(order, _the_only(labels, active))

        of_leaf = owned(owns, given.names, num_tasks)
        start = state.inner, state.affinity, state.losses
        division = order, labels, active
        end = group_steps(
            *(inner, of_leaf, params, start, division, decay, causal, ask, extra_args)
        )
        new_state = SelectiveGroupsState(
            affinity=end.affinity,
            groups=groups,
            losses=jnp.where(active, end.losses, state.losses),
            step=state.step + active.astype(jnp.int32),
            key=keep,
            inner=end.inner,
        )
        total = jax.tree.map(lambda d, p: d.astype(p.dtype), end.moved, params)
        return total, new_state

    return placed(init, update)


def _first_active(groups: jax.Array, active: jax.Array) -> jax.Array:
    """For each task the first active one of its group, `[T]`: the group's slot."""
    together = (groups[:, None] == groups[None, :]) & active[None, :]
    return jnp.argmax(together, axis=1).astype(jnp.int32)


def _the_only(labels: jax.Array, active: jax.Array) -> jax.Array:
    """The slot of the only group that there is, or -1 if there are several or none."""
    first = labels[jnp.argmax(active)]
    alone = jnp.any(active) & jnp.all((labels == first) | ~active)
    return jnp.where(alone, first, -1)
