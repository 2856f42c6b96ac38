"""IMTL-G: impartial multi-task learning on gradients (Liu et al. 2021).

The paper solves a (T-1)-sized system, singular for parallel gradients; the equivalent
Gramian form is solved here by eigenvalues of the cosine matrix with a relative cut-off,
so that badly scaled or repeated gradients do no harm.
"""

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def imtl_g() -> Weighting:
    r"""Impartial gradient: equal projections on every task's unit gradient.

    .. math::
      \langle d, g_t / \|g_t\| \rangle \text{ equal for all } t, \quad
      d = \sum_t w_t \, g_t, \quad \sum_t w_t = 1

    Args:
      num_tasks: T, a Python int.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Its
      direction does not depend on the scale of any loss. Output scale: weights sum to
      1, some may be negative for T >= 3. T=1 gives the gradient itself.

    Raises:
      ValueError: for gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; one T x T
    eigenvalue problem.

    Invariances: the direction does not depend on the scale of any loss.

    Guarantee: equal progress along every unit gradient, and a direction that does not
    depend on the scale of any loss, where the gradients are linearly independent.

    When not to use it: with linearly dependent gradients of three or more tasks, where
    no or many solutions exist (the minimum-norm one is taken, and zero where weights
    cannot sum to 1, as for opposite gradients); and where small losses are meant to
    count less: impartiality is between tasks, whatever their scale. A task with zero
    gradient has weight 0.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.imtl_g(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.6667, 0.6667], dtype=float32)

    References:
      Liu et al., `Towards Impartial Multi-task Learning
      <https://openreview.net/forum?id=IMPnRXEWpvr>`_, 2021.
    """

    def update(
        gramian: jax.Array, state: tuple[()], **extra: object
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        cosines, norms = linalg.cosine_matrix(gramian)
        alive = norms > 0
        values, vectors, keep = linalg.psd_eigh(cosines)
        dot = lax.Precision.HIGHEST
        ones = alive.astype(gramian.dtype)
        along = jnp.where(keep, jnp.matmul(ones, vectors, precision=dot) / values, 0)
        of_units = jnp.where(alive, jnp.matmul(vectors, along, precision=dot), 0)
        raw = of_units / jnp.where(alive, norms / jnp.max(norms), 1)
        total, size = jnp.sum(raw), jnp.sum(jnp.abs(raw))
        # Opposite gradients: no direction has equal positive projections.
        floor = linalg.noise_floor(gramian.shape[0], gramian.dtype)
        defined = (jnp.max(of_units) > floor) & (jnp.abs(total) > floor * size)
        return jnp.where(defined, raw / jnp.where(defined, total, 1), 0), state

    return Weighting(no_state(), update)
