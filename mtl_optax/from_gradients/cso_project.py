r"""The second phase of CSO: channels keep what their first task learned.

Jeong & Yoon 2024, phase 2 of their algorithm, with the priorities given; `cso` finds
them and runs both phases. The authors' code leaves a layer as it is where one task is
first on all of its channels; here, as in the paper, the others give way there too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.products import combine, gramian
from mtl_optax.core.stacked import from_stack
from mtl_optax.core.task_grads.in_range import power_of_two
from mtl_optax.core.trees.leaves import is_function, spread
from mtl_optax.core.trees.task_axis import lead


def _is_none(x: Any) -> bool:
    return x is None


def _check(name: str, first: jax.Array, leaf: jax.Array) -> None:
    """Raises unless `first` has one task for each channel of the stacked leaf."""
    channels = leaf.shape[-1:] if leaf.ndim > 1 else None
    if not jnp.issubdtype(first.dtype, jnp.integer) or first.shape != channels:
        raise ValueError(
            f"cso_project: in priority= leaf {name or 'of the parameters'} must be "
            "None, or the task that is first on each channel, integers of shape "
            f"{channels or 'that a scalar leaf lacks'} for the last axis of "
            f"{leaf.shape[1:]}; got dtype {first.dtype} and shape {first.shape}."
        )


def _project(leaf: jax.Array, first: jax.Array) -> jax.Array:
    """Sum over tasks of one layer's gradients, conflicts with the first tasks gone."""
    num_tasks = leaf.shape[0]
    mine = first[None, :] == jnp.arange(num_tasks)[:, None]
    mine = mine.reshape(num_tasks, *(1,) * (leaf.ndim - 2), -1)
    # Ratios of products do not depend on a common unit, but squares may overflow.
    wide = leaf.astype(jnp.result_type(float))
    near_one = wide / power_of_two(jnp.max(jnp.abs(wide), initial=0))
    reference = jnp.where(mine, near_one, 0)
    largest = jnp.max(jnp.abs(reference), axis=range(1, leaf.ndim), initial=0)
    reference /= lead(power_of_two(largest), leaf)  # in a unit of its own
    # Row s: products of all gradients with that of task s, on the channels of s.
    on_mine = gramian(near_one, reference).T
    square = jnp.diagonal(on_mine)
    some = square >= jnp.finfo(square.dtype).tiny
    against = jnp.sum(jnp.maximum(-on_mine, 0), axis=1)
    # What the others lose along the reference is the reference, so often.
    lost = jnp.where(some, against / jnp.where(some, square, 1), 0)
    factor = 1 + jnp.where(mine, lead(lost, leaf), 0)
    return combine(factor * leaf, jnp.ones_like(lost))


def cso_project(num_tasks: int, priority: Any) -> optax.GradientTransformationExtraArgs:
    r"""The sum of gradients that do not conflict with each channel's first task.

    .. math::
      d = \sum_t h_t, \quad
      h_t = g_t - \frac{\min(0, \langle g_t, g_s \rangle)}{\|g_s\|^2} \, g_s
      \quad \text{on the channels whose first task is } s

    layer by layer, that is, for each leaf on its own, with the inner products taken
    over all channels of a leaf that have the same first task s.

    Args:
      num_tasks: T, a Python int.
      priority: the task that is first on each channel: a tree like the parameters, a
        prefix of it, or a function of the parameters, with integers `[C]` for a leaf
        `[..., C]` (Flax keeps output channels last), or None for leaves without, which
        get the plain sum. May be traced. A number that is no task: none is first.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. Its `update` takes `priority=` instead of the one given here, and `active`
      `[T]` bool (on channels whose first task is inactive: the plain sum). Output
      scale: sum. T=1 gives the gradient itself.

    Raises:
      ValueError: for a priority that is not one integer a channel, or a function of
        parameters that `update` does not get; for gradients that are not stacked, or
        another task count.

    Cost: T backward passes and T copies of the gradient, as many again for the products
    on the channels; no state.

    Invariances: none to loss scales.

    Guarantee: on the channels of a leaf on which a task is first the update does not
    conflict with it, and is at least as long along its gradient as this. None for other
    tasks.

    When not to use it: without knowing the first tasks; `cso` finds them, and trains
    the tasks until channels are theirs.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
      >>> priority = {"kernel": jnp.array([1, 0]), "bias": None}
      >>> grads = {
      ...     "kernel": jnp.array([[[1.0, 1], [0, 0]], [[-1.0, -1], [1, -1]]]),
      ...     "bias": jnp.array([[1.0, 0], [-1, 1]]),
      ... }
      >>> tx = mtl.cso_project(2, priority)
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> update["kernel"], update["bias"]
      (Array([[-0.5,  1. ],
             [ 1.5, -1. ]], dtype=float32), Array([0., 1.], dtype=float32))

    References:
      Jeong & Yoon, `Quantifying Task Priority for Multi-Task Optimization
      <https://arxiv.org/abs/2406.02996>`_, 2024.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    default = priority

    def update(
        gradients: optax.Updates,
        state: tuple[()],
        *,
        active: jax.Array,
        params: optax.Params | None,
        priority: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, tuple[()]]:
        del active, extra
        chosen = default if priority is None else priority
        if is_function(chosen, _is_none):
            chosen = chosen(checks.required("cso_project", "params", params))
        found = spread(chosen, gradients, _is_none, what="priority=")
        leaves, treedef = jax.tree.flatten(gradients)
        sums = []
        for leaf, (name, first) in zip(leaves, found, strict=True):
            if first is None:
                sums.append(combine(leaf, jnp.ones(num_tasks)))
                continue
            first = jnp.asarray(first)
            _check(name, first, leaf)
            sums.append(_project(leaf, first))
        return jax.tree.unflatten(treedef, sums), state

    return from_stack(num_tasks, lambda params: (), update)
