"""ConFIG: the conflict-free direction of equal cosines (Liu, Chu and Thuerey 2024).

Equation 2 has the pseudo-inverse of the stacked unit gradients, for which the authors'
code by default solves least squares; here it is that of their cosine matrix, by
eigenvalues with a relative cut-off. Where 0 lies in the hull of the gradients no
direction is free of conflicts: theirs is then the least-squares one, which harms some
task; ours is exact zero.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.names import Names, PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.length_models import check_length, tracked_lengths
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers import linalg
from mtl_optax.core.solvers.min_norm import in_hull
from mtl_optax.core.weighting import Weighting, no_state


@gramian_method
def conflictfree(
    *, preference: PerTask = None, length: Any = "projection"
) -> Weighting:
    r"""ConFIG: the direction at the same angle to every task's gradient.

    .. math::
      u = \frac{U^+ p}{\|U^+ p\|}, \quad d = \Big( \sum_t \langle g_t, u \rangle \Big) u

    where the rows of U are the unit gradients :math:`g_t / \|g_t\|`, so that
    :math:`\cos(g_t, d) \propto p_t`. For two tasks this is DCGD "center" (Hwang and
    Lim 2024).

    Args:
      num_tasks: T, a Python int.
      preference: p, `[T]` in sorted order of names or a dict by name, positive; only
        proportions matter. None is uniform: equal cosines.
      length: how long d is. "projection", as above, is :math:`\sum_t \|g_t\| \cos(g_t,
        d)`; the others put one norm in place of all :math:`\|g_t\|`: the "min", "max",
        "mean", "harmonic" or "geometric" mean of those of the tasks that have a
        gradient, or that of one task, by name, or by index in sorted order of names
        (may be a tracer). Where that task has no gradient, or is inactive, d is zero.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Its
      direction does not depend on the scale of any loss. Output scale: sum of the
      gradients' projections on it, or by `length`. T=1 gives the gradient itself.

    Raises:
      ValueError: for a `preference` that is not `[T]`, or a `length` that is neither a
        model nor a task (a name only in `update`); for gradients that are not stacked,
        or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; one T x T
    eigenvalue problem and one quadratic program of size T.

    Invariances: the direction does not depend on the scale of any loss.

    Guarantee: descends every task, at cosines proportional to p, and a direction that
    does not depend on the scale of any loss, where the gradients are linearly
    independent.

    When not to use it: with more tasks than independent gradients, where in general no
    direction has such cosines: the nearest in the least-squares sense is taken, which
    may conflict, and exact zero where 0 lies in the gradients' hull. Of nearly opposite
    gradients the update is the short part that they share. A task with zero gradient
    has weight 0.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.conflictfree(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([1.5, 1.5], dtype=float32)

    References:
      Liu, Chu and Thuerey, `ConFIG: Towards Conflict-free Training of Physics Informed
      Neural Networks <https://arxiv.org/abs/2408.11104>`_, 2024.
    """
    init = no_state(preference=preference)

    def checked(num_tasks: int) -> tuple[()]:
        check_length(length, num_tasks)
        return init(num_tasks)

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        active: jax.Array,
        names: Names | None = None,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        cosines, norms = linalg.cosine_matrix(gramian)
        alive = norms > 0
        chosen = jnp.where(alive, preference_or_uniform(preference, active), 0)
        values, vectors, keep = linalg.psd_eigh(cosines)
        along = jnp.where(keep, linalg.dot(chosen, vectors), 0)
        # b = U' units has inner products `projected` with the unit gradients U.
        units = jnp.where(alive, linalg.dot(vectors, along / values), 0)
        projected = linalg.dot(vectors, along)
        square = jnp.sum(along**2 / values)
        floor = linalg.noise_floor(norms.shape[0], norms.dtype)
        exists = jnp.sum(along**2) > floor**2 * jnp.sum(chosen**2)
        exists &= ~in_hull(gramian, active)
        # Divided by the longest, so that neither end of the range overflows.
        longest = jnp.max(norms)
        size = norms / jnp.where(longest > 0, longest, 1)
        lengths = tracked_lengths(length, size, names)
        total = jnp.sum(lengths * projected) / jnp.where(square > 0, square, 1)
        weights = total * units / jnp.where(alive, size, 1)
        return jnp.where(exists, weights, 0), state

    return Weighting(checked, update)
