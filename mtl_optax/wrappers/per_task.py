"""per_task: a transformation run on each task's gradient, before they are combined."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.random import is_key, one_a_task
from mtl_optax.core.chains.places import ROWS, placed
from mtl_optax.core.state_guard import batched, check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.trees.task_axis import TaskTree, lead
from mtl_optax.core.weighting import check_transformation


class PerTaskState(NamedTuple):
    """State of per_task."""

    each: TaskTree  # state of the transformation, every leaf `[T, ...]`


def per_task(
    tx: optax.GradientTransformation, num_tasks: int
) -> optax.GradientTransformationExtraArgs:
    r"""Runs an ordinary transformation on each task's gradient on its own.

    .. math:: g_t \leftarrow \text{tx}_t(g_t), \quad t = 1 \ldots T

    With `optax.scale_by_adam` and a plain sum after it this is AdaTask, one Adam a
    task, whose updates do not depend on the scale of any loss; with
    `optax.clip_by_global_norm` it clips each task's gradient, with `optax.trace` it
    gives each task a momentum.

    Args:
      tx: a transformation of gradients shaped like the parameters.
      num_tasks: T, a Python int.

    Returns:
      A transformation of stacked task gradients `[T, *param]` into stacked ones, to
      stand before a method in a chain. Lazy gradients are stacked first, and their
      losses and names do not travel on: pass `losses=`, a dict, to methods that need
      one of them or take values by name. The state of
      tasks that are not `active` stays, and their rows become zero. Random keys in the
      state of `tx` (typed ones, and arrays that end like raw key data, uint32 `[2]`)
      are folded with the index of the task, so that `optax.add_noise` draws other noise
      for each; what `tx` draws without a key in its state is the same for all.

    Raises:
      ValueError: for gradients that are not stacked, another task count, or a state of
        another one.

    Cost: T backward passes and T copies of gradient and state of `tx`.

    When not to use it: for a transformation of the combined update, which goes after
    the method and costs one copy. Note that Adam for each task destroys the ratio of
    the tasks' gradient norms, on which MGDA, CAGrad and others decide. Before
    `flat_mtl` and `samo`, which make gradients anew and look at these for a direction
    only: put it inside, `samo(optax.chain(per_task(...), method), ...)`.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> clip = mtl.per_task(optax.clip_by_global_norm(1.0), num_tasks=2)
      >>> tx = optax.chain(clip, mtl.unitary(num_tasks=2))
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[3.0, 0.0], [0.0, 0.5]])}
      >>> tx.update(grads, tx.init(params), params)[0]
      {'w': Array([1. , 0.5], dtype=float32)}

    References:
      Yang et al., `AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task
      Learning <https://arxiv.org/abs/2211.15055>`_, 2023.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    check_transformation("per_task", tx)
    each = optax.with_extra_args_support(tx)

    def rows(x: Any) -> jax.Array:
        if is_key(x):
            return one_a_task(jnp.asarray(x), num_tasks)
        # Broadcasting keeps the sharding of the parameters; vmap of init loses it.
        return jnp.broadcast_to(x, (num_tasks, *jnp.shape(x)))

    def init(params: optax.Params) -> PerTaskState:
        return PerTaskState(jax.tree.map(rows, each.init(params)))

    def update(
        updates: Any,
        state: PerTaskState,
        params: optax.Params | None = None,
        *,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PerTaskState]:
        given = as_task_grads(updates, num_tasks, params, active=active)
        mask = given.active
        tree = given.like() if params is None else params
        check_state(
            state, batched(jax.eval_shape(each.init, tree), num_tasks), num_tasks
        )

        def one(gradient: Any, state: Any) -> Any:
            return each.update(gradient, state, params, **extra_args)

        new, new_state = jax.vmap(one)(given.stack(), state.each)
        if mask is None:
            return new, PerTaskState(new_state)
        new = jax.tree.map(lambda x: jnp.where(lead(mask, x), x, 0), new)
        kept = jax.tree.map(
            lambda x, old: jnp.where(lead(mask, x), x, old),
            *(new_state, state.each),
        )
        return new, PerTaskState(kept)

    return placed(init, update, ROWS)
