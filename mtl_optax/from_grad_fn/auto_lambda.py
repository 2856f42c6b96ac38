r"""Auto-Lambda: task weights that descend the validation loss (Liu et al. 2022).

Equations 5 to 7 of arXiv 2202.03091: one step ahead on the training batch, and the
slope of the primary tasks' validation loss in the weights. The paper has this slope by
finite differences of losses, two forward passes with a step of 0.01 over the norm; here
it is exact, one pass in forward mode. No momentum nor weight decay in the step ahead.
LibMTL has softmax weights (`variant="softmax"`) with Adam at 1e-3, where the paper's
are raw, from 0.1, with Adam at 1e-4; both draw both batches from the training data, and
LibMTL a third for the step itself, which here is on the first. The authors' code is
under a non-commercial licence: written from the paper and LibMTL's form (MIT).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.bilevel import (
    both_batches,
    descended,
    softmax_slopes,
)
from mtl_optax.core.chains.places import placed
from mtl_optax.core.learned import TaskScalars, scalars_from, step_scalars
from mtl_optax.core.method import transformation_method
from mtl_optax.core.scalarization import softmax_among
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.at_other_params import group_grads_at
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows


class AutoLambdaState(NamedTuple):
    """State of Auto-Lambda."""

    task_weights: TaskRows  # [T] weights of the last update
    learned: TaskScalars  # lambda, or what the weights are the softmax of


@transformation_method
def auto_lambda(
    num_tasks: int,
    *,
    learning_rate: ScalarOrSchedule,
    optimizer: optax.GradientTransformation | None = None,
    init: PerTask = 0.1,
    primary: PerTask = None,
    variant: str = "raw",
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Weights that would have helped the primary tasks on a second batch.

    .. math::
      \theta' = \theta - \eta \sum_t \lambda_t g_t, \quad
      v = \nabla \sum_t p_t L_t^{val}(\theta'), \quad
      \lambda_t \text{ descends along } - \eta \langle g_t, v \rangle, \quad
      d = \sum_t \lambda_t g_t

    A task whose gradient points along that of the primary tasks' validation loss gains
    weight. The update has the weights after their step.

    Args:
      num_tasks: T, a Python int.
      learning_rate: eta, of the step ahead: that of training; may be a tracer.
      optimizer: optax optimiser of the weights; None is `optax.adam(1e-4)`, with
        "softmax" `optax.adam(1e-3)`, as in LibMTL.
      init: initial lambda, a number or `[T]` in sorted order of names or a dict by
        name. Softmax weights know differences alone, so that one number is 1/T each.
      primary: p, `[T]` in sorted order of names or a dict by name: True (or 1) for the
        tasks that matter, False for auxiliary ones. None: all are primary.
      variant: "raw" weights, as in the paper; or "softmax" of what is learned.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: the validation gradient is averaged over it.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Its
      `update` needs `params`, and `validation_losses_fn=`, which gives the losses of a
      second batch (a dict or tuple of scalars, or an array `[T]`) at other parameters:
      `validation_losses_fn=lambda p: losses_fn(p, x_val, y_val)`, made inside the
      jitted step, since a function is no argument of `jax.jit`; without auxiliary
      output, `lambda p: losses_fn(p, x_val)[0]`. A task that is not `active` has weight
      0, and what it has learned rests; it does not judge either, unless
      `validation_active=` `[T]` bool says which tasks have labels in the second batch.
      Where no primary task has, all weights rest. Heads are weighted too, as in the
      paper: where a task has a head of its own, its weight scales that head's gradient.
      Output scale: sum of weights 0.1 T at the start, 1 with "softmax"; raw weights are
      not bounded, and a harmful task's becomes negative. T=1 gives the gradient times
      lambda.

    Raises:
      ValueError: for a negative learning rate, an unknown variant, `init` or `primary`
        of another length, or no primary task; in `update` if `params` or
        `validation_losses_fn=` is missing or does not return T losses, for gradients
        that are not stacked, or another task count.

    Cost: 3 backward passes with lazy gradients, one of them on the second batch, and
    one in forward mode; with stacked ones one backward pass and three reads of the
    stack; state of 5 numbers a task with Adam; a copy of the parameters on the way.

    Invariances: none to loss scales: the slope has the unit of squared gradients. With
    Adam a factor common to all losses changes the step ahead alone.

    Guarantee: a small enough plain step of the weights would have lowered the primary
    tasks' loss on the second batch after one step; none for the update itself.

    When not to use it: without data to spare for the second batch, or where it is the
    training data again, which rewards what is learned by heart; in short runs: at 1e-4
    a weight moves by 0.1 in a thousand steps. With Adam behind it the common size of
    the weights does nothing, and eta is not that of the step that is made.

    Example:
      >>> import jax.numpy as jnp, optax, mtl_optax as mtl
      >>> losses_fn = lambda x: {"a": (x - 1) ** 2, "b": (x + 1) ** 2}
      >>> tx = mtl.auto_lambda(
      ...     num_tasks=2,
      ...     learning_rate=0.1,
      ...     optimizer=optax.sgd(0.1),
      ...     init=0.5,
      ...     primary={"a": True, "b": False},
      ... )
      >>> x = jnp.array(0.0)
      >>> _, grads = mtl.lazy_task_grads(losses_fn)(x)
      >>> _, state = tx.update(grads, tx.init(x), x, validation_losses_fn=losses_fn)
      >>> mtl.task_weights(state)
      Array([0.54, 0.46], dtype=float32)

    References:
      Liu, James, Davison and Johns, `Auto-Lambda: Disentangling Dynamic Task
      Relationships <https://arxiv.org/abs/2202.03091>`_, 2022. Lin and Zhang, `LibMTL:
      A Python Library for Multi-Task Learning <https://arxiv.org/abs/2203.14338>`_.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.at_least("learning_rate", learning_rate, 0)
    checks.one_of("variant", variant, ("raw", "softmax"))
    primary = _of_all(primary, num_tasks)
    softmax = variant == "softmax"
    stepper = optax.adam(1e-3 if softmax else 1e-4) if optimizer is None else optimizer
    start = partial(scalars_from(stepper, init), num_tasks)
    jax.eval_shape(start)  # checks `init` at once

    def init_state(params: optax.Params) -> AutoLambdaState:
        check_params("tx.init", params)
        return AutoLambdaState(replicated_zeros((num_tasks,), params), start())

    def update(
        updates: Any,
        state: AutoLambdaState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        validation_losses_fn: Callable[[optax.Params], Any] | None = None,
        validation_active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AutoLambdaState]:
        batches = both_batches(
            *("auto_lambda", num_tasks, updates, params, extra_args),
            losses=losses,
            active=active,
            validation_losses_fn=validation_losses_fn,
            validation_active=validation_active,
        )
        train, present = batches.train, batches.present
        if not jax.tree.leaves(train.like()):
            return train.like(), state
        check_state(state, jax.eval_shape(init_state, params), num_tasks)

        def weigh(learned: TaskScalars) -> jax.Array:
            if softmax:
                return softmax_among(learned.values, present)
            return jnp.where(present, learned.values, 0)

        weights = weigh(state.learned)
        ahead = descended(params, learning_rate, train.pull(weights))
        judges = jnp.where(batches.judging, primary, 0)
        look = group_grads_at(batches.validation_losses, axis_name=axis_name)
        _, uphill = look(ahead, judges, batches.validation_active)
        slopes = train.along(uphill)
        slopes = softmax_slopes(weights, slopes) if softmax else slopes
        moves = present & jnp.any(judges != 0) & jnp.isfinite(slopes)
        learned = step_scalars(stepper, -learning_rate * slopes, state.learned, moves)
        weights = weigh(learned)
        return train.pull(weights), AutoLambdaState(weights, learned)

    return placed(init_state, update)


def _of_all(primary: Any, num_tasks: int) -> jax.Array:
    """`primary` as `[T]` numbers, checked."""
    listed = primary if isinstance(primary, (list, tuple, set)) else [primary]
    if isinstance(primary, int) or any(isinstance(one, str) for one in listed):
        raise ValueError(
            "auto_lambda: primary= tells of each task whether it is one, [T] bools or "
            f'a dict by name, such as {{"a": True, "b": False}}; got {primary!r}.'
        )
    every = np.ones(num_tasks) if primary is None else primary
    vector = checks.task_vector("primary", every, num_tasks)
    if isinstance(vector, jax.core.Tracer) or np.any(vector):
        return vector
    raise ValueError(
        "auto_lambda: primary= names no task, so that no loss would judge the weights: "
        "make the entry of one task or more True, or leave it out, and all are primary."
    )
