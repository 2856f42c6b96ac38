"""GradDrop: gradient sign dropout (Chen et al. 2020, Algorithm 1), on parameters.

The paper applies it to the gradients of a shared representation, and lets each task
leak; this is the form on parameter gradients that TorchJD and the CAGrad code use. Sum
over tasks as in the paper; those codes return the mean, or rescale to the plain sum's
norm.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core import checks
from mtl_optax.core.lazy import as_stacked
from mtl_optax.core.random import next_key, raw_key


class GradDropState(NamedTuple):
    """State of GradDrop."""

    key: jax.Array  # raw key data, uint32


def graddrop(
    num_tasks: int, *, key: Any, leak: Any = None
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps, in each coordinate, either the positive or the negative gradients.

    .. math::
      P = \tfrac12 \Big( 1 + \frac{\sum_t g_t}{\sum_t |g_t|} \Big), \quad
      d = \sum_t \big( \ell_t + (1 - \ell_t) M_t \big) g_t

    where for :math:`U \sim \text{Uniform}(0, 1)`, one draw a coordinate, the mask
    :math:`M_t` keeps positive entries if :math:`P > U` and negative ones if
    :math:`P < U`.

    Args:
      num_tasks: T, a Python int.
      key: int or key for the draws.
      leak: :math:`\ell`, `[T]` in [0, 1], the part of each task that is never dropped;
        None is 0.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. Extra arguments of `update`: `active` `[T]` bool, and `uniforms=`, a tree
      of `[*param]` draws to use instead of drawing. Output scale: sum. T=1 gives the
      gradient itself.

    Raises:
      ValueError: if `leak` is not one number a task; for gradients that are not
        stacked, or another task count.

    Cost: T backward passes and T copies of the gradient; one key of state; as many
    random numbers as parameters, which dominate the time.

    Guarantee: none on conflicts: in each coordinate one sign survives, chosen at random
    with the odds of its share.

    When not to use it: if updates must be reproducible across parameter layouts, or
    where the noise of the draws hurts; nothing is known about conflicts of the result.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.graddrop(num_tasks=2, key=0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 2.0], [-3.0, 1.0]])}
      >>> tx.update(
      ...     grads, tx.init(params), params, uniforms={"w": jnp.array([0.2, 0.9])}
      ... )[0]
      {'w': Array([1., 3.], dtype=float32)}

    References:
      Chen et al., `Just Pick a Sign: Optimizing Deep Multitask Models with Gradient
      Sign Dropout <https://arxiv.org/abs/2010.06808>`_, 2020.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    if leak is not None:
        leak = checks.task_vector("leak", leak, num_tasks)
    first_key = raw_key(key)

    def init(params: optax.Params) -> GradDropState:
        del params
        return GradDropState(first_key)

    def update(
        updates: Any,
        state: GradDropState,
        params: optax.Params | None = None,
        *,
        active: Any = None,
        uniforms: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GradDropState]:
        del extra_args
        checks.task_gradients(updates, num_tasks, params)
        mask = checks.active_mask(active, num_tasks)
        stacked = as_stacked(updates)
        leaves, treedef = jax.tree.flatten(stacked)
        use, keep = next_key(state.key)
        if uniforms is None:
            keys = jax.random.split(use, max(len(leaves), 1))
            draws = [
                jax.random.uniform(k, leaf.shape[1:])
                for k, leaf in zip(keys, leaves, strict=False)
            ]
        else:
            draws = jax.tree.leaves(uniforms)
        dropped = [
            _drop_signs(leaf, draw, leak, mask)
            for leaf, draw in zip(leaves, draws, strict=True)
        ]
        return jax.tree.unflatten(treedef, dropped), GradDropState(keep)

    return optax.GradientTransformationExtraArgs(init, update)


def _drop_signs(
    leaf: jax.Array,
    uniform: jax.Array,
    leak: jax.Array | None,
    active: jax.Array | None,
) -> jax.Array:
    """One leaf `[T, *param]` to `[*param]`, written out over tasks so that it fuses."""
    rows = [row.astype(jnp.result_type(float)) for row in leaf]
    if active is not None:
        rows = [jnp.where(active[t], row, 0) for t, row in enumerate(rows)]
    total = sum(rows[1:], rows[0])
    size = sum((jnp.abs(row) for row in rows[1:]), jnp.abs(rows[0]))
    purity = 0.5 * (1 + total / jnp.where(size > 0, size, 1))
    kept = jnp.zeros_like(total)
    for t, row in enumerate(rows):
        keep = ((purity > uniform) & (row > 0)) | ((purity < uniform) & (row < 0))
        share = jnp.where(keep, 1, 0 if leak is None else leak[t])
        kept += share * row
    return kept.astype(leaf.dtype)
