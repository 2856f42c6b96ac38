"""PCGrad: projecting conflicting gradients (Yu et al. 2020, Algorithm 1).

Draws the visiting order afresh for every task, as the paper says; the authors' code
visits the tasks in the order of their index (`order="fixed"`) and includes the task
itself. Works on coefficients of the Gramian, never on gradients.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.random import next_key, raw_key
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg, surgery
from mtl_optax.core.weighting import Weighting


class PCGradState(NamedTuple):
    """State of PCGrad."""

    key: jax.Array  # raw key data, uint32


@jax.jit
def _project(cosines: jax.Array, order: jax.Array) -> jax.Array:
    """Row i: the coefficients of g_i/|g_i| after its projections, `[T, T]`."""
    num_tasks = cosines.shape[0]
    if num_tasks == 1:
        return jnp.ones_like(cosines)
    rows = jnp.arange(num_tasks, dtype=jnp.int32)

    def visit(step: jax.Array, coefficients: jax.Array) -> jax.Array:
        other = lax.dynamic_index_in_dim(order, step, axis=1, keepdims=False)
        inner = jnp.sum(cosines[other] * coefficients, axis=1)
        return coefficients.at[rows, other].add(-jnp.minimum(inner, 0))

    bounds = jnp.int32(0), jnp.int32(num_tasks - 1)
    return lax.fori_loop(*bounds, visit, jnp.eye(num_tasks, dtype=cosines.dtype))


@gramian_method
def pcgrad(*, key: Any, order: str = "random", reduction: str = "sum") -> Weighting:
    r"""Projects each task gradient off those that it conflicts with, and sums.

    .. math::
      h_i \leftarrow h_i - \frac{\langle h_i, g_j \rangle}{\|g_j\|^2} g_j
      \text{ if } \langle h_i, g_j \rangle < 0, \quad d = \sum_i h_i

    starting from :math:`h_i = g_i`, over all :math:`j \ne i` in random order. With
    `granularity="leaf"` this is MGS, modular gradient surgery (2026). For two tasks
    whose sum conflicts with one of them, `reduction="mean"` is DCGD "average" (Hwang
    and Lim 2024), which takes the whole sum elsewhere.

    Args:
      num_tasks: T, a Python int.
      key: int or key for the visiting orders.
      order: "random", drawn for every task and step; or "fixed", by task index.
      reduction: "sum" as in the paper, or "mean".
      granularity: None compares whole gradients as in the paper; "leaf", or a tree of
        labels, projects each parameter array, or block of them, on its own, with the
        same orders (INFERRED useful, a different method).

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. The extra
      argument `order=` `[T, T-1]` int gives the orders instead of drawing them. Output
      scale: sum. T=1 gives the gradient itself.

    Raises:
      ValueError: for an unknown option; for gradients that are not stacked, or another
        task count.

    Cost: at most T backward passes with lazy gradients; one key of state; T(T-1) steps
    on T numbers.

    Invariances: none to loss scales: what is projected off does not depend on them, but
    the gradients are summed as they are. Draws decide on the order of the tasks.

    Guarantee: conflicts with no task if there are two; none for more.

    When not to use it: with three or more tasks the result may still conflict with
    some of them, and it depends on the order; with two tasks it is exactly 2 UPGrad.
    Two exactly opposite gradients give zero.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.pcgrad(num_tasks=2, key=0)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.5, 1.5], dtype=float32)

    References:
      Yu et al., `Gradient Surgery for Multi-Task Learning
      <https://arxiv.org/abs/2001.06782>`_, 2020.
    """
    checks.one_of("order", order, ("random", "fixed"))
    checks.one_of("reduction", reduction, ("sum", "mean"))
    first_key, visiting = raw_key(key), order

    def update(
        gramian: jax.Array,
        state: PCGradState,
        *,
        active: jax.Array,
        order: jax.Array | None = None,
        **extra: object,
    ) -> tuple[jax.Array, PCGradState]:
        del extra
        num_tasks = gramian.shape[0]
        use, keep = next_key(state.key)
        if order is None:
            order = surgery.visiting_order(use, num_tasks, visiting)
        cosines, norms = linalg.cosine_matrix(gramian)
        coefficients = _project(cosines, jnp.asarray(order, jnp.int32))
        weights = surgery.sum_of_rows(coefficients, norms)
        if reduction == "mean":
            weights /= jnp.maximum(jnp.sum(active), 1).astype(weights.dtype)
        return weights, PCGradState(keep)

    return Weighting(lambda num_tasks: PCGradState(jnp.copy(first_key)), update)
