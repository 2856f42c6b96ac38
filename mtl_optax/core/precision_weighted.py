"""The mean over tasks in which each counts by how sure its own number is."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import active_mask

_LEAST_VARIANCE = 1e-8  # the authors'


def precision_weighted_mean(
    means: Any, variances: Any, *, power: ArrayLike = 1.0, active: Any = None
) -> Any:
    r"""Mean over tasks, number by number, each task weighted by its precision.

    .. math::
      \frac{\sum_t \mu_t / s_t}{\sum_t 1 / s_t}, \quad
      s_t = \max(\sigma_t^2, 10^{-8})^p

    It is the last line of BayesAgg-MTL: with the mean and variance of every task's
    gradient at the representation, under the posterior of its head, the result is the
    cotangent for one backward pass through the trunk. Written from the formula (the
    authors' code is Apache-2.0), which takes the variance's floor before the power.

    Args:
      means: :math:`\mu`, a tree whose every leaf is `[T, ...]`.
      variances: :math:`\sigma^2`, a tree of the same shapes.
      power: p, 1 for the precision itself, below 1 for weights nearer to one another, 0
        for the plain mean; may be a tracer.
      active: `[T]` bool, or a dict by name; tasks that are not active do not count, and
        may hold NaN.

    Returns:
      A tree with leaves `[...]` in the dtypes of the means, computed in float32 or
      wider; 0 where no task is active. Output scale: mean, between the least and the
      greatest of the means.

    Raises:
      ValueError: for trees or shapes that differ, or leaves without a common T.

    Cost: two reads of the means and of the variances. As a way to train: the moments,
    of T gradients at the representation for every draw of the heads, and one backward
    pass through the trunk.

    When not to use it: on gradients of parameters, whose variance over examples says
    how noisy a task is and not how unsure its head. Where variances have no relation to
    the scale of the means: a task with small gradients has small variances, and counts
    for more than its share.

    Example:
      >>> import jax, jax.numpy as jnp, mtl_optax as mtl
      >>> x, y = jnp.array([[1.0], [2.0]]), jnp.array([[1.0, 2.0], [0.0, 1.0]])
      >>> features, pull = jax.vjp(lambda w: x @ w, jnp.array([[1.0, -1.0]]))
      >>> head = jnp.array([[1.0, 0.0], [0.0, 1.0]])  # of two tasks, and its deviation
      >>> spread = jnp.array([[0.5, 0.1], [0.1, 0.5]])
      >>> draws = jnp.stack([head - spread, head + spread])
      >>> loss = lambda h, head, y: jnp.mean((h @ head - y) ** 2)
      >>> by_task = jax.vmap(jax.grad(loss), (None, 0, 0))
      >>> moments = jax.vmap(by_task, (None, 0, None))(features, draws, y)  # [draws, T]
      >>> mean, variance = moments.mean(axis=0), moments.var(axis=0)
      >>> cotangent = mtl.precision_weighted_mean(mean, variance)
      >>> pull(cotangent)[0].round(3)
      Array([[-0.068,  0.2  ]], dtype=float32)

    References:
      Achituve et al., `Bayesian Uncertainty for Gradient Aggregation in Multi-Task
      Learning <https://arxiv.org/abs/2402.04005>`_, 2024.
    """
    checks.at_least("power", power, 0)
    means = jax.tree.map(jnp.asarray, means)
    variances = jax.tree.map(jnp.asarray, variances)
    num_tasks = _check(means, variances)
    mask = (
        jnp.ones(num_tasks, bool) if active is None else active_mask(active, num_tasks)
    )

    def of_leaf(mean: jax.Array, variance: jax.Array) -> jax.Array:
        wide = jnp.promote_types(mean.dtype, jnp.float32)
        present = mask.reshape((num_tasks,) + (1,) * (mean.ndim - 1))
        spread = variance.astype(wide)
        spread = jnp.clip(spread, _LEAST_VARIANCE, jnp.finfo(wide).max)
        # Over that of the surest, so that no power of it leaves the range of numbers.
        surest = jnp.min(spread, axis=0, keepdims=True, initial=jnp.inf, where=present)
        ratio = jnp.where(present, surest / spread, 1)
        weights = jnp.where(present, (ratio**power).astype(wide), 0)
        total = jnp.sum(weights, axis=0)
        wanted = jnp.sum(weights * jnp.where(present, mean, 0), axis=0)
        wanted /= jnp.where(total > 0, total, 1)
        exact = jnp.issubdtype(mean.dtype, jnp.inexact)
        return wanted.astype(mean.dtype if exact else wide)

    return jax.tree.map(of_leaf, means, variances)


def _check(means: Any, variances: Any) -> int:
    """T, which all leaves have in common."""
    wanted: Any = jax.tree.structure(means)
    got: Any = jax.tree.structure(variances)
    if got != wanted:
        raise ValueError(
            "precision_weighted_mean: variances must be a tree like the means, "
            f"{wanted}; got {got}. Each mean needs its variance."
        )
    leaves = jax.tree.leaves(means)
    for mean, variance in zip(leaves, jax.tree.leaves(variances), strict=True):
        if mean.shape != variance.shape:
            raise ValueError(
                "precision_weighted_mean: a mean and its variance must have the same "
                f"shape; got {mean.shape} and {variance.shape}. Use jnp.broadcast_to "
                "for one variance that several means share."
            )
    sizes = {leaf.shape[:1] for leaf in leaves}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            "precision_weighted_mean: every leaf must have the tasks on its first "
            f"axis, [T, ...]; got shapes {[leaf.shape for leaf in leaves]}. Stack the "
            "moments of the tasks, jnp.stack(each)."
        )
    return int(leaves[0].shape[0])
