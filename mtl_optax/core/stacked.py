"""What the methods that read every coordinate of the stack have in common.

`from_stack` does for them what `from_weighting` does for a weighting: checks, lazy
gradients, missing tasks, empty trees, dtypes. The rest is for state of the size of the
stack, `[T, *param]`.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.chains.places import placed
from mtl_optax.core.state_guard import check_state
from mtl_optax.core.task_grads.as_task_grads import as_task_grads
from mtl_optax.core.task_grads.shape_checks import check_params
from mtl_optax.core.trees.task_axis import lead, where_active


def from_stack(
    num_tasks: int, init: Callable[[optax.Params], Any], update: Callable[..., Any]
) -> optax.GradientTransformationExtraArgs:
    """Turns a rule that reads every coordinate into an aggregator.

    Args:
      num_tasks: T, a Python int.
      init: `init(params) -> state`.
      update: `update(gradients, state, *, losses, active, params, **extra) -> (update,
        state)`. `gradients` are stacked, each leaf `[T, *param]`, zero in rows of
        inactive tasks; `losses` is `[T]`, 1 at inactive tasks, or None; `active` is
        always an array `[T]` bool; `params` may be None. The update is cast to the
        dtypes of the gradients.

    Returns:
      A transformation of stacked gradients, or of lazy ones, which it stacks. A tree
      without leaves goes through, and leaves the state as it is.
    """
    taken = checks.keywords(update)

    def checked(
        updates: Any,
        state: Any,
        params: optax.Params | None = None,
        *,
        losses: Any = None,
        active: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        checks.only_taken(extra_args, taken, updates)
        given = as_task_grads(updates, num_tasks, params, losses=losses, active=active)
        gradients, mask = given.stack(), given.active
        if not jax.tree.leaves(gradients):
            return gradients, state
        tree = given.like() if params is None else params
        check_state(state, jax.eval_shape(init, tree), num_tasks)
        present = jnp.ones(num_tasks, bool) if mask is None else mask
        combined, state = update(
            *(gradients, state),
            losses=given.losses,
            active=present,
            params=params,
            **extra_args,
        )
        same = jax.tree.map(lambda d, g: d.astype(g.dtype), combined, gradients)
        return same, state

    def checked_init(params: optax.Params) -> Any:
        check_params("tx.init", params)
        return init(params)

    return placed(checked_init, checked)


def zero_stack(params: optax.Params, num_tasks: int) -> optax.Params:
    """Zeros `[T, *param]`, in float32 or wider, sharded like the parameters."""

    def zeros(param: Any) -> jax.Array:
        wide = jnp.promote_types(jnp.result_type(param), jnp.float32)
        zero = jnp.zeros_like(param, wide)  # broadcasting it keeps the sharding
        return jnp.broadcast_to(zero, (num_tasks, *zero.shape))

    return jax.tree.map(zeros, params)


def follow(
    buffer: optax.Updates, target: optax.Updates, rate: jax.Array, active: jax.Array
) -> optax.Updates:
    """Moves the rows of active tasks by `rate` `[T]` from `buffer` to `target`."""

    def step(old: jax.Array, new: jax.Array) -> jax.Array:
        return moved(old, new.astype(old.dtype), lead(rate, old))

    return where_active(active, jax.tree.map(step, buffer, target), buffer)


def moved(old: jax.Array, new: jax.Array, rate: jax.Array) -> jax.Array:
    """The old numbers moved by `rate`, in [0, 1], to the new ones.

    All the way they are the new ones, whatever the old were: huge, or NaN.
    """
    part = rate.astype(old.dtype)
    return (1 - part) * jnp.where(part < 1, old, 0) + part * new


def task_norms(stacked: optax.Updates) -> jax.Array:
    """Norm over all leaves, one for each task, `[T]`, of gradients of any size."""
    leaves = jax.tree.leaves(stacked)
    each = [jnp.max(jnp.abs(x), axis=range(1, x.ndim), initial=0) for x in leaves]
    largest = reduce(jnp.maximum, each).astype(jnp.result_type(float))
    largest = jnp.where(largest > 0, largest, 1)  # so that squares neither overflow
    near_one = [over(x.astype(largest.dtype), lead(largest, x)) for x in leaves]
    return largest * jnp.sqrt(task_sums([x**2 for x in near_one]))


def norms_by_block(stacked: optax.Updates, blocks: Sequence[int]) -> jax.Array:
    """The same on the leaves of each block, `[B, T]`."""
    pairs = list(zip(jax.tree.leaves(stacked), blocks, strict=True))
    each = [[leaf for leaf, at in pairs if at == i] for i in range(max(blocks) + 1)]
    return jnp.stack(list(map(task_norms, each)))


def over(values: jax.Array, largest: jax.Array) -> jax.Array:
    """The values over a number that is as large as any of them, before a product.

    Cut to [-1, 1], where they are already: else XLA would take products of constants
    first, which may overflow.
    """
    return jnp.clip(values / largest, -1, 1)


def task_sums(stacked: optax.Updates) -> jax.Array:
    """Sum over all coordinates of all leaves, one for each task, `[T]`."""
    return reduce(
        operator.add,
        [
            jnp.sum(leaf, axis=range(1, leaf.ndim), dtype=jnp.result_type(float))
            for leaf in jax.tree.leaves(stacked)
        ],
    )
