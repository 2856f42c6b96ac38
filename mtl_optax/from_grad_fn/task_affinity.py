"""TAG: how much a step for one task helps each other task, measured in training.

Look-ahead affinity of Fifty et al. (arXiv 2109.04617), averaged over measured steps.
The authors' code divides it by the current learning rate; here it is the plain ratio of
the paper, which differs in scale only while the learning rate is constant. Their CelebA
code looks ahead with the momentum step that training would make: `optimizer=` does.
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
from mtl_optax.core.arguments.losses import losses_vector
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.chains.places import ROWS, placed
from mtl_optax.core.method import transformation_method
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.data_axis import mean_over
from mtl_optax.core.task_grads.losses_fn import asked
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.branches import as_before
from mtl_optax.core.trees.leaves import only
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskPairs


class TaskAffinityState(NamedTuple):
    """State of task_affinity."""

    affinity: TaskPairs  # [T, T] mean of [source, recipient]; 0 where never measured
    counts: TaskPairs  # [T, T] int32, measurements in each mean
    step_in_cycle: jax.Array  # [] int32, steps since the last measurement
    optimizer_state: Any  # of `optimizer`, on shared leaves; empty without


@transformation_method
def task_affinity(
    num_tasks: int,
    *,
    losses_fn: Callable[[optax.Params], Any] | None = None,
    owner: Any,
    learning_rate: ScalarOrSchedule = None,
    optimizer: optax.GradientTransformation | None = None,
    every_k: int = 10,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Observes the affinity between tasks; gradients pass through unchanged.

    .. math::
      Z_{ij} = 1 - \frac{L_j(\theta_{sh} - \eta \nabla_{sh} L_i, \theta_j)}
      {L_j(\theta_{sh}, \theta_j)}

    averaged over the measured steps 0, k, 2k, ...: positive where a step for task i on
    the shared parameters alone lowers the loss of task j. It stands before the method,
    `optax.chain(task_affinity(...), method, optimiser)`, and its state has the
    `affinity`, from which :func:`mtl_optax.select_task_groups` makes groups.

    Args:
      num_tasks: T, a Python int.
      losses_fn: `losses_fn(params) -> losses`, a dict (tasks in order of sorted names)
        or tuple of scalars, or an array `[T]`. Where each step has a batch of its own,
        pass the function of that batch to `update` instead, as `losses_fn=`.
      owner: tree of None (shared by all tasks) or tasks by name or index (its owner)
        like the parameters, a prefix of one, or a function from parameters to one.
        None alone: every leaf is shared.
      learning_rate: eta, the size of the step ahead; may be a tracer. Not read if
        `optimizer` is given.
      optimizer: instead of a plain step, the step that this transformation makes of
        the gradient of task i, for example `optax.sgd(0.1, momentum=0.9)`: that of
        training. Its state is kept here, for shared leaves, and goes on at every step
        with the sum of the gradients of active tasks, as in TAG's training.
      every_k: steps from one measurement to the next, a Python int.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: losses at moved parameters are averaged over it.
        None in `jax.shard_map` wants a `losses_fn` that averages by itself.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones, into the
      same ones. Its `update` needs `params`, and `losses_fn=` unless given above, which
      it overrides: `losses_fn=lambda p: losses_fn(p, x, y)`, made inside the jitted
      step, since a function is no argument of `jax.jit`; without auxiliary output,
      `lambda p: losses_fn(p, x)[0]`. Not counted are pairs with a task that is not
      `active`, with a recipient whose loss is not positive, or with a ratio that is not
      finite. Output scale: the gradients as they came.

    Raises:
      ValueError: for a `num_tasks` or `every_k` that is no positive Python int, a
        negative learning rate, or neither learning rate nor optimizer; in `update` if
        `params` or `losses_fn=` is missing, for gradients that are not stacked, or an
        owner that is no task.

    Cost: T + 1 forward passes at a measured step (and T backward passes through shared
    leaves for lazy gradients); state of T x T numbers, with `optimizer` its own besides
    and a sum of the gradients at every step. Under `jax.vmap` every step is measured
    and most measurements dropped.

    Invariances: to the scale of the recipient's loss. That of the source's scales its
    row, to first order, unless `optimizer` is blind to it.

    Guarantee: none on the update, which is that of the method behind it. A measurement
    is exact up to the rounding of a difference of losses.

    When not to use it: as a method, it decides nothing; with losses that may be zero
    or negative; with steps so small that losses do not change in their precision, as
    in bfloat16; after the method, where gradients are no longer apart.

    Example:
      >>> import jax.numpy as jnp, numpy as np, optax, mtl_optax as mtl
      >>> losses_fn = lambda x: {"a": 0.5 * x**2, "b": 0.5 * (x - 3) ** 2}
      >>> watch = mtl.task_affinity(
      ...     num_tasks=2, losses_fn=losses_fn, owner=None, learning_rate=0.1
      ... )
      >>> tx = optax.chain(watch, mtl.unitary(num_tasks=2), optax.sgd(0.1))
      >>> params = jnp.array(1.0)
      >>> losses, grads = mtl.task_grads(losses_fn)(params)
      >>> update, state = tx.update(grads, tx.init(params), params)
      >>> np.asarray(state[0].affinity).round(4)
      array([[ 0.19  , -0.1025],
             [-0.44  ,  0.19  ]], dtype=float32)

    References:
      Fifty et al., `Efficiently Identifying Task Groupings for Multi-Task Learning
      <https://arxiv.org/abs/2109.04617>`_, 2021.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    every_k = checks.static_int("every_k", every_k)
    checks.at_least("learning_rate", learning_rate, 0)
    if learning_rate is None and optimizer is None:
        raise ValueError(
            "task_affinity looks one step ahead: give its learning_rate=, or the "
            "optimizer= that makes the step."
        )
    stepper = optax.scale(-learning_rate) if optimizer is None else optimizer
    fixed_losses_fn = losses_fn

    def shared_leaves(params: optax.Params) -> tuple[bool, ...]:
        kept = tuple(task is None for task in owners(owner, params, num_tasks))
        if kept and not any(kept):
            raise ValueError(
                "task_affinity: owner= names an owner on every leaf, so that no task "
                "can help another. Put None on the leaves that all tasks share."
            )
        return kept

    def init(params: optax.Params) -> TaskAffinityState:
        check_params("tx.init", params)
        affinity = replicated_zeros((num_tasks, num_tasks), params)
        return TaskAffinityState(
            affinity=affinity,
            counts=affinity.astype(jnp.int32),
            step_in_cycle=jnp.zeros((), jnp.int32),
            optimizer_state=stepper.init(only(params, shared_leaves(params))),
        )

    def update(
        updates: Any,
        state: TaskAffinityState,
        params: optax.Params | None = None,
        *,
        active: Any = None,
        losses_fn: Callable[[optax.Params], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[Any, TaskAffinityState]:
        if not jax.tree.leaves(as_task_grads(updates, num_tasks, params).like()):
            return updates, state
        checks.required("task_affinity", "params", params)
        given = fixed_losses_fn if losses_fn is None else losses_fn
        owns = owners(owner, params, num_tasks)
        named = names_of_all(owns, num_tasks)
        rows = as_task_grads(updates, num_tasks, params, active=active, names=named)
        if rows.names is not None:
            owned(owns, rows.names, num_tasks)  # raises for an owner that is no task
        ask, rows = asked("task_affinity", given, rows, params, extra_args)
        check_state(state, jax.eval_shape(init, params), num_tasks)
        mask = rows.active
        present = jnp.ones(num_tasks, bool) if mask is None else mask
        kept = shared_leaves(params)
        here = only(params, kept)
        gradients = rows.select(kept).at_parameters()

        def losses_at(params: optax.Params) -> jax.Array:
            return mean_over(losses_vector(ask(params), num_tasks), axis_name)

        def look_ahead(task: int) -> jax.Array:
            row = gradients.row(task)
            step, _ = stepper.update(row, state.optimizer_state, here)
            return losses_at(_moved(params, kept, optax.apply_updates(here, step)))

        def measure(past: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            after = [look_ahead(task) for task in range(num_tasks)]
            return _averaged(*past, losses_at(params), jnp.stack(after), present)

        due = (state.step_in_cycle == 0) & jnp.any(present)
        past = state.affinity, state.counts
        affinity, counts = lax.cond(due, measure, lambda past: past, past)
        inner = state.optimizer_state
        if optimizer is not None:
            joint = gradients.pull(present.astype(affinity.dtype))
            _, inner = optimizer.update(joint, inner, here)
        new = TaskAffinityState(
            affinity, counts, (state.step_in_cycle + 1) % every_k, inner
        )
        new = as_before("The optimizer of task_affinity", new, state)
        return updates, jax.tree.map(partial(jnp.where, jnp.any(present)), new, state)

    return placed(init, update, ROWS)


def _moved(params: Any, kept: tuple[bool, ...], ahead: Any) -> Any:
    """The parameters with those of `ahead` in place of the leaves that are kept."""
    leaves, treedef = jax.tree.flatten(params)
    new = iter(jax.tree.leaves(ahead))
    leaves = [next(new) if k else p for p, k in zip(leaves, kept, strict=True)]
    return jax.tree.unflatten(treedef, leaves)


def _averaged(
    affinity: jax.Array,
    counts: jax.Array,
    before: jax.Array,
    after: jax.Array,
    present: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The means with one more measurement: losses `[T]`, and `[source, recipient]`."""
    ratio = (before[None, :] - after) / before[None, :]
    counted = present[:, None] & present[None, :] & jnp.isfinite(ratio)
    counted &= (before > 0)[None, :]
    counts += counted.astype(jnp.int32)
    change = jnp.where(counted, ratio - affinity, 0) / jnp.maximum(counts, 1)
    return affinity + change, counts
