r"""MOML: task weights that descend every task's validation loss (Ye et al. 2021).

Algorithm 1 with one inner step, as in LibMTL (MIT; read, not copied): softmax weights,
and the slopes of all validation losses in these, of unit length, joined by MGDA. The
inner step is 0.1 and Adam's 1e-3, as there. LibMTL draws both batches from the training
data, and a third for the step itself, which here is on the first. Where its norm of a
row is 0 it has NaN; here such a row is the shortest vector, and nothing changes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.schedules import ScalarOrSchedule
from mtl_optax.core.bilevel import (
    both_batches,
    descended,
    softmax_slopes,
)
from mtl_optax.core.cancellation import zero_if_cancelling
from mtl_optax.core.chains.places import placed
from mtl_optax.core.learned import TaskScalars, scalars_from, step_scalars
from mtl_optax.core.method import transformation_method
from mtl_optax.core.scalarization import softmax_among
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.min_norm import min_norm_weights
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.replicated import replicated_zeros
from mtl_optax.core.trees.task_axis import TaskRows


class MOMLState(NamedTuple):
    """State of MOML."""

    task_weights: TaskRows  # [T] weights of the last update
    learned: TaskScalars  # alpha, what the weights are the softmax of


@transformation_method
def moml(
    num_tasks: int,
    *,
    learning_rate: ScalarOrSchedule = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    axis_name: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Weights whose change helps all tasks on a second batch, or none is made.

    .. math::
      s = \text{softmax}(\alpha), \quad \theta' = \theta - \eta \sum_t s_t g_t, \quad
      m_t = \nabla_\alpha L_t^{val}(\theta'), \quad
      \alpha \text{ descends MGDA of } m_t / \|m_t\|, \quad d = \sum_t s_t g_t

    where :math:`m_{tj} = -\eta \, s_j \langle \nabla L_t^{val}(\theta'), g_j -
    \sum_k s_k g_k \rangle`. The update has the weights after their step.

    Args:
      num_tasks: T, a Python int.
      learning_rate: eta, of the step ahead: that of training; may be a tracer.
      optimizer: optax optimiser of alpha, which starts at equal weights; None is
        `optax.adam(1e-3)`.
      axis_name: name of a mapped data axis (`jax.shard_map`), as in
        :func:`mtl_optax.task_grads`: validation gradients are averaged over it.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Its
      `update` needs `params`, and `validation_losses_fn=`, the losses of a second batch
      at other parameters, as in :func:`mtl_optax.auto_lambda`. A task that is not
      `active` has weight 0, and its alpha rests; it does not judge either, unless
      `validation_active=` `[T]` bool says which tasks have labels in the second batch.
      Heads are weighted too. Output scale: simplex. T=1 gives the gradient itself.

    Raises:
      ValueError: for a negative learning rate; in `update` if `params` or
        `validation_losses_fn=` is missing or does not return T losses, for gradients
        that are not stacked, or another task count.

    Cost: T + 2 backward passes with lazy gradients, T of them on the second batch, and
    T in forward mode; with stacked ones T backward passes and T + 2 reads of the stack;
    state of 5 numbers a task with Adam.

    Invariances: scaling the validation loss of one task changes nothing; scaling the
    loss of a task in training scales its gradient, and that is not taken out.

    Guarantee: a small enough plain step of alpha would have lowered every task's loss
    on the second batch after one step, unless no change of the weights can; then alpha
    gets a gradient of exactly zero. None for the update itself.

    When not to use it: without data to spare for the second batch; where T is large.
    With two tasks any change of the weights helps one at the other's cost wherever they
    compete, so that the weights stay equal; and a task without a validation gradient
    stops all.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> losses_fn = lambda x: {"a": (x - 1) ** 2, "b": (x + 1) ** 2}
      >>> tx = mtl.moml(num_tasks=2)
      >>> x = jnp.array(0.0)
      >>> _, grads = mtl.lazy_task_grads(losses_fn)(x)
      >>> _, state = tx.update(grads, tx.init(x), x, validation_losses_fn=losses_fn)
      >>> mtl.task_weights(state)
      Array([0.5, 0.5], dtype=float32)

    References:
      Ye et al., `Multi-Objective Meta Learning
      <https://proceedings.neurips.cc/paper/2021/hash/
      b23975176653284f1f7356ba5539cfcb-Abstract.html>`_, 2021.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    checks.at_least("learning_rate", learning_rate, 0)
    stepper = optax.adam(1e-3) if optimizer is None else optimizer
    start = partial(scalars_from(stepper, 1 / num_tasks), num_tasks)

    def init(params: optax.Params) -> MOMLState:
        check_params("tx.init", params)
        return MOMLState(replicated_zeros((num_tasks,), params), start())

    def update(
        updates: Any,
        state: MOMLState,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        validation_losses_fn: Callable[[optax.Params], Any] | None = None,
        validation_active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MOMLState]:
        batches = both_batches(
            *("moml", num_tasks, updates, params, extra_args),
            losses=losses,
            active=active,
            validation_losses_fn=validation_losses_fn,
            validation_active=validation_active,
        )
        train, present = batches.train, batches.present
        if not jax.tree.leaves(train.like()):
            return train.like(), state
        check_state(state, jax.eval_shape(init, params), num_tasks)

        weights = softmax_among(state.learned.values, present)
        ahead = descended(params, learning_rate, train.pull(weights))
        look = lazy_task_grads(batches.validation_losses, axis_name=axis_name)
        judges = dataclasses.replace(look(ahead)[1], active=batches.validation_active)
        slopes = [
            -learning_rate * softmax_slopes(weights, train.along(judges.row(task)))
            for task in range(num_tasks)
        ]
        gradient = _common_descent(jnp.stack(slopes), batches.judging)
        moves = present & jnp.any(batches.judging) & jnp.all(jnp.isfinite(gradient))
        learned = step_scalars(stepper, gradient, state.learned, moves)
        weights = softmax_among(learned.values, present)
        return train.pull(weights), MOMLState(weights, learned)

    return placed(init, update)


def _common_descent(slopes: jax.Array, judging: jax.Array) -> jax.Array:
    """The shortest vector `[T]` in the hull of the unit rows; 0 if it is rounding."""
    largest = jnp.max(jnp.abs(slopes), axis=1, keepdims=True)
    rows = slopes / jnp.where(largest > 0, largest, 1)
    norms = jnp.sqrt(jnp.sum(rows**2, axis=1, keepdims=True))
    rows /= jnp.where(norms > 0, norms, 1)
    gramian = linalg.dot(rows, rows.T)
    mixture = zero_if_cancelling(min_norm_weights(gramian, judging), gramian)
    return linalg.dot(mixture, rows)
