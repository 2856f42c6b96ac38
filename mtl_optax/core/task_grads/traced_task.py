"""Gradients of those tasks alone that the compiled step chooses.

What does not run costs nothing: a branch a task. But XLA's CPU takes a naive form of a
convolution's gradients inside a branch, at fifty times the time, so that there, and
only there, what convolves runs for all tasks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtl_optax.core.layerwise import jaxprs
from mtl_optax.core.layerwise.one_task import pull_back_one, split

LossesOf = Callable[[Any], Sequence[jax.Array]]


def row_of(
    losses_of: LossesOf,
    ones: Sequence[jax.Array],
    params: Any,
    again: LossesOf | None,
    task: jax.Array,
) -> optax.Updates | None:
    """The gradient `[*param]` of the task with this index.

    None where one pass through all tasks is faster than a branch.

    Args:
      losses_of: from a tangent of the parameters to those of T losses, linear.
      ones: T cotangents.
      params: the parameters.
      again: from parameters to T losses: where tasks share no work, the forward pass is
        taken in the branch too, so that those of the other tasks are left out unless
        somebody reads their losses. None: it cannot.
      task: [] integer.
    """
    linear = jaxprs.trace(losses_of, params)
    parts = split(linear)
    if _slow_in_branches(linear) and (parts.own_convolutions or not parts.shares_work):
        return None
    if again is not None and not parts.shares_work:
        return lax.switch(task, _forward_and_back(again, params, len(ones)))
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(treedef, pull_back_one(parts, task, ones, leaves))


def rows_of(
    losses_of: LossesOf,
    ones: Sequence[jax.Array],
    params: Any,
    again: LossesOf | None,
    chosen: jax.Array,
) -> optax.Updates:
    """The gradients `[T, *param]`, those of tasks that are not chosen `[T]` zero.

    The other arguments are those of `row_of`.
    """
    linear = jaxprs.trace(losses_of, params)
    rows = _back(losses_of, ones, params)
    if _slow_in_branches(linear):
        each = [_if(here, row()) for here, row in zip(chosen, rows, strict=True)]
    else:
        if again is not None and not split(linear).shares_work:
            rows = _forward_and_back(again, params, len(ones))
        zeros = jax.tree.map(jnp.zeros_like, params)
        each = [
            lax.cond(here, row, lambda: zeros)
            for here, row in zip(chosen, rows, strict=True)
        ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _slow_in_branches(linear: Any) -> bool:
    convolves = jaxprs.CONVOLUTION in jaxprs.names_in(linear.jaxpr.eqns)
    return convolves and jax.default_backend() == "cpu"


def _back(
    losses_of: LossesOf, ones: Sequence[jax.Array], params: Any
) -> list[Callable[[], optax.Updates]]:
    def of(task: int) -> Callable[[], optax.Updates]:
        back = jax.linear_transpose(lambda p: losses_of(p)[task], params)
        return lambda: back(ones[task])[0]

    return [of(task) for task in range(len(ones))]


def _forward_and_back(
    again: LossesOf, params: Any, num_tasks: int
) -> list[Callable[[], optax.Updates]]:
    def of(task: int) -> Callable[[], optax.Updates]:
        return lambda: jax.grad(lambda p: again(p)[task])(params)

    return [of(task) for task in range(num_tasks)]


def _if(chosen: jax.Array, row: optax.Updates) -> optax.Updates:
    return jax.tree.map(lambda x: jnp.where(chosen, x, jnp.zeros_like(x)), row)
