"""Coordinate-wise trimmed mean (Yin et al. 2018, Definition 2).

Made for workers of whom some send anything; here the workers are tasks. Where so few
tasks are active that trimming would leave none, less is trimmed (the paper and TorchJD
know no missing tasks).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtl_optax.core.arguments import checks
from mtl_optax.core.products import combine
from mtl_optax.core.stacked import from_stack
from mtl_optax.core.trees.task_axis import lead

# Up to here rows are sorted by minima and maxima of whole rows, which XLA vectorises;
# its own sort along the task axis takes 10 to 18 times as long on CPU.
_COMPARED = 16


def trimmed_mean(
    num_tasks: int, *, trim_number: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Averages, in each coordinate, the tasks that are left without the extreme ones.

    .. math::
      d = \frac{1}{T - 2k} \sum_{i=k+1}^{T-k} g_{(i)}, \quad
      g_{(1)} \le \ldots \le g_{(T)} \text{ in each coordinate}

    Args:
      num_tasks: T, a Python int.
      trim_number: k, how many tasks are left out at either end, a Python int; 0 gives
        the mean, (T - 1) / 2 the median of an odd number of tasks.

    Returns:
      A transformation of stacked task gradients `[T, *param]`; lazy ones are stacked
      first. With `active`, k is at most (T_active - 1) // 2, so that one or two tasks
      are always left: two active tasks give their mean. NaN counts as larger than any
      number. Output scale: mean. T=1 gives the gradient itself (with `trim_number=0`).

    Raises:
      ValueError: for a `trim_number` that is no Python int, negative, or so large that
        no task is left, T < 2k + 1; for gradients that are not stacked, or another
        task count.

    Cost: T backward passes and T copies of the gradient; no state; as many copies again
    while sorting.

    Invariances: none to loss scales: raw gradients are ordered.

    Guarantee: in each coordinate within the range of the other tasks, whatever up to k
    of them hold, NaN and infinities included. None on conflicts.

    When not to use it: to balance tasks. In each coordinate it ignores whoever differs
    most, which with two camps of tasks is the smaller one, and a task whose gradients
    are larger than the others' is hardly heard.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.trimmed_mean(num_tasks=3)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [2.0, -9.0], [jnp.nan, 1.0]])}
      >>> tx.update(grads, tx.init(params), params)[0]
      {'w': Array([2., 0.], dtype=float32)}

    References:
      Yin et al., `Byzantine-Robust Distributed Learning: Towards Optimal Statistical
      Rates <https://arxiv.org/abs/1803.01498>`_, 2018.
    """
    num_tasks = checks.static_int("num_tasks", num_tasks)
    trim_number = checks.static_int("trim_number", trim_number, minimum=0)
    if num_tasks < 2 * trim_number + 1:
        raise ValueError(
            f"trimmed_mean: trim_number={trim_number} leaves out {2 * trim_number} "
            f"tasks, but there are {num_tasks}; it must be at most "
            f"{(num_tasks - 1) // 2}."
        )

    def update(
        gradients: optax.Updates,
        state: optax.EmptyState,
        *,
        active: jax.Array,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del extra

        def ordered(leaf: jax.Array) -> jax.Array:
            last = jnp.isnan(leaf) | ~lead(active, leaf)
            return _sort_tasks(jnp.where(last, jnp.inf, leaf))

        count = jnp.sum(active)
        trimmed = jnp.clip((count - 1) // 2, 0, trim_number)
        rank = jnp.arange(num_tasks)
        kept = (rank >= trimmed) & (rank < count - trimmed)
        weights = kept / jnp.maximum(jnp.sum(kept), 1).astype(jnp.result_type(float))
        return combine(jax.tree.map(ordered, gradients), weights, kept), state

    return from_stack(num_tasks, lambda params: optax.EmptyState(), update)


def _sort_tasks(leaf: jax.Array) -> jax.Array:
    """A leaf `[T, ...]` in increasing order along its first axis."""
    num_tasks = leaf.shape[0]
    if num_tasks > _COMPARED:
        return jnp.sort(leaf, axis=0)
    rows = list(leaf)
    for step in range(num_tasks):  # odd-even transposition sort
        for i in range(step % 2, num_tasks - 1, 2):
            one, two = rows[i], rows[i + 1]
            rows[i], rows[i + 1] = jnp.minimum(one, two), jnp.maximum(one, two)
    return jnp.stack(rows)
