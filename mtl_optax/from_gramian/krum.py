"""Krum: the gradients nearest to their neighbours (Blanchard et al. 2017).

Made for workers of which some send arbitrary vectors. Scores are sums of squared
distances, as in the paper; TorchJD sums the distances, which may select others.
"""

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments import checks
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.weighting import Weighting


@gramian_method
def krum(*, num_byzantine: int, num_selected: int = 1) -> Weighting:
    r"""Krum: the mean of the task gradients that lie nearest to others.

    .. math::
      s_i = \sum_{j \in N_i} \|g_i - g_j\|^2, \quad
      d = \frac1m \sum_{i \in \text{the } m \text{ lowest } s_i} g_i

    where :math:`N_i` holds the T - f - 2 nearest neighbours of :math:`g_i`.

    Args:
      num_tasks: T, a Python int.
      num_byzantine: f, how many gradients may be arbitrary, a Python int of at most
        T - 3; 0 goes with any T.
      num_selected: m, how many are averaged, a Python int; 1 is Krum, more Multi-Krum.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: mean of the m selected. T=1 gives the gradient itself. Ties go to the task
      of lowest index. With missing tasks T is the number of active ones; each has at
      least one neighbour (if there are two tasks), and at most T are averaged.

    Raises:
      ValueError: for an f above T - 3, an m above T, or one that is no Python int; for
        gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; T sorts of
    T numbers.

    Invariances: none to loss scales: distances between raw gradients decide. Ties go to
    the task with the lowest index.

    Guarantee: none on conflicts. With 2 f + 2 < T and the others independent draws of
    one distribution, whose spread is small beside its mean, a single selected gradient
    still points along that mean in expectation.

    When not to use it: for tasks that truly differ: one whose gradient stands apart is
    never trained, and no other counts than the m selected. Distances come from the
    Gramian, so between rows that agree to half the digits of float32 (3e-4 of their
    length) they are rounding, and so is the choice.

    Example:
      >>> import jax.numpy as jnp, mtl_optax as mtl
      >>> tx = mtl.krum(num_tasks=4, num_byzantine=1, num_selected=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [9.0, -9.0]])
      >>> tx.update({"w": rows}, tx.init(params), params)[0]
      {'w': Array([0.5, 0.5], dtype=float32)}

    References:
      Blanchard et al., `Machine Learning with Adversaries: Byzantine Tolerant Gradient
      Descent <https://arxiv.org/abs/1703.02757>`_, 2017.
    """
    num_byzantine = checks.static_int("num_byzantine", num_byzantine, 0)
    num_selected = checks.static_int("num_selected", num_selected)

    def update(
        gramian: jax.Array, state: tuple[()], *, active: jax.Array, **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        square = jnp.diag(gramian)
        # Rounding takes the distance of nearly equal rows below 0.
        apart = jnp.maximum(square[:, None] + square[None, :] - 2 * gramian, 0)
        others = active[:, None] & active[None, :] & ~linalg.eye(gramian)
        nearest = jnp.sort(jnp.where(others, apart, jnp.inf), axis=1)
        present = jnp.sum(active, dtype=jnp.int32)
        neighbours = jnp.maximum(present - num_byzantine - 2, 1)
        place = jnp.arange(gramian.shape[0], dtype=jnp.int32)
        near = place < jnp.minimum(neighbours, present - 1)
        scores = jnp.sum(jnp.where(near[None, :], nearest, 0), axis=1)
        # Stable, so that ties go to the lowest index.
        ranking = jnp.argsort(jnp.where(active, scores, jnp.inf))
        selected = jnp.minimum(num_selected, present)
        share = 1 / jnp.maximum(selected, 1).astype(gramian.dtype)
        shares = jnp.where(place < selected, share, 0)
        return jnp.zeros_like(square).at[ranking].set(shares), state

    def init(num_tasks: int) -> tuple[()]:
        if 0 < num_byzantine and num_tasks < num_byzantine + 3:
            raise ValueError(
                f"num_byzantine={num_byzantine} needs at least {num_byzantine + 3} "
                "tasks, so that each is compared with a neighbour beyond those; got "
                f"num_tasks={num_tasks}. Lower num_byzantine."
            )
        if num_selected > num_tasks:
            raise ValueError(
                f"num_selected={num_selected} exceeds num_tasks={num_tasks}: lower it."
            )
        return ()

    return Weighting(init, update)
