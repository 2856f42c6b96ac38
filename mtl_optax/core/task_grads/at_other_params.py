"""Gradients at other parameters, for methods that look around or step twice."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments.losses import (
    differentiable,
    loss_of,
    losses_and_aux,
)
from mtl_optax.core.task_grads.data_axis import local, mean_over
from mtl_optax.core.task_grads.from_losses_fn import lazy_task_grads
from mtl_optax.core.task_grads.shape_checks import check_params


def task_grads_at(
    losses_fn: Callable[..., Any],
    *args: Any,
    has_aux: bool = False,
    axis_name: Any = None,
    **kwargs: Any,
) -> Callable[[optax.Params], optax.Updates]:
    r"""The gradient of each task at parameters of its own, as `flat_mtl` asks for it.

    .. math:: (\theta_1 \ldots \theta_T) \mapsto
      (\nabla L_1(\theta_1) \ldots \nabla L_T(\theta_T))

    Args:
      losses_fn: the same that :func:`mtl_optax.task_grads` takes: `losses_fn(params,
        *args, **kwargs) -> losses`, a dict (tasks in order of sorted names) or tuple of
        scalars, or an array `[T]`.
      *args: its other arguments, for example the batch of this step.
      has_aux: whether `losses_fn` returns `(losses, aux)`. The auxiliary output, such
        as batch statistics, is dropped: it belongs to the unperturbed pass.
      axis_name: as in :func:`mtl_optax.task_grads`.
      **kwargs: its keyword arguments, but for these two names.

    Returns:
      `task_grad_fn(stacked_params) -> stacked_grads`, leaves `[T, *param]` both. Make
      it inside the jitted step, since a function is no argument of `jax.jit`.

    Raises:
      ValueError: when called, if a task's loss is not a real floating point scalar, or
        a leaf of the parameters is no array of these.

    Cost: T forward and T backward passes, for each task without the heads of the others
    (with a dict or tuple of losses); T copies of the gradient.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> losses_fn = lambda params: {"a": params**2, "b": params**3}
      >>> mtl.task_grads_at(losses_fn)(jnp.array([1.0, 2.0]))
      Array([ 2., 12.], dtype=float32)
    """

    def task_grad_fn(stacked_params: optax.Params) -> optax.Updates:
        def losses_at(params: optax.Params) -> Any:
            return losses_and_aux(losses_fn(params, *args, **kwargs), has_aux)[0]

        check_params("task_grads_at", stacked_params)
        num_tasks = jax.tree.leaves(stacked_params)[0].shape[0]
        points = (
            jax.tree.map(lambda p, task=task: p[task], stacked_params)
            for task in range(num_tasks)
        )
        return rows_at(losses_at, points, axis_name)

    return task_grad_fn


def rows_at(
    losses_fn: Callable[[optax.Params], Any],
    points: Iterable[optax.Params],
    axis_name: Any = None,
) -> optax.Updates:
    """The gradient of each task at the point of its own, stacked `[T, *param]`."""

    def loss(params: optax.Params, task: int) -> jax.Array:
        return loss_of(differentiable(losses_fn(params)), task)

    rows = [
        jax.grad(loss)(local(point, axis_name), task)
        for task, point in enumerate(points)
    ]
    return mean_over(jax.tree.map(lambda *rows: jnp.stack(rows), *rows), axis_name)


def group_grads_at(
    losses_fn: Callable[..., Any],
    *args: Any,
    has_aux: bool = False,
    axis_name: Any = None,
    **kwargs: Any,
) -> Callable[..., tuple[jax.Array, optax.Updates]]:
    r"""Losses and the gradient of some of them, as `selective_groups` and `cso` ask.

    .. math:: (\theta, w) \mapsto
      \Big( (L_1(\theta) \ldots L_T(\theta)), \; \nabla \sum_t w_t L_t(\theta) \Big)

    Args:
      losses_fn: as in :func:`task_grads_at`.
      *args: as in :func:`task_grads_at`.
      has_aux: as in :func:`task_grads_at`.
      axis_name: as in :func:`mtl_optax.task_grads`.
      **kwargs: as in :func:`task_grads_at`.

    Returns:
      `group_grad_fn(params, weights, active=None) -> (losses, gradient)`, where
      `weights` and `losses` are `[T]`, `gradient` is like `params`, and a NaN of tasks
      that `active` `[T]` leaves out does not reach it. Make it inside the jitted step,
      since a function is no argument of `jax.jit`.

    Raises:
      ValueError: when called, if a task's loss is not a real floating point scalar, or
        a leaf of the parameters is no array of these.

    Cost: one forward and one backward pass through everything; only the forward pass,
    under `jit`, where the gradient is not used. T backward passes more, where `active`
    leaves a task out and the gradient is not finite. (Without `active`, weight 0 times
    the NaN of a task's gradient is NaN.)

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> losses_fn = lambda params: {"a": jnp.sum(params**2), "b": jnp.sum(params**3)}
      >>> mtl.group_grads_at(losses_fn)(jnp.array([2.0]), jnp.array([0.0, 1.0]))
      (Array([4., 8.], dtype=float32), Array([12.], dtype=float32))
    """
    at = lazy_task_grads(losses_fn, has_aux=has_aux, axis_name=axis_name)

    def group_grad_fn(
        params: optax.Params, weights: jax.Array, active: jax.Array | None = None
    ) -> tuple[jax.Array, optax.Updates]:
        _, lazy = at(params, *args, **kwargs)
        asked = dataclasses.replace(lazy, active=active)
        return lazy.losses, asked.pull(weights)

    return group_grad_fn
