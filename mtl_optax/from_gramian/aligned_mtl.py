"""Aligned-MTL: aligned principal components of the gradients (Senushkin et al. 2023).

The authors sum the aligned gradients; here, as in TorchJD, `preference` 1/T gives their
mean. Their code scales by the smallest eigenvalue ("min") unless told otherwise; its
other modes are "rmse", the mean eigenvalue, and "median", the lower middle one. It uses
a general eigenvalue routine; ours finds small eigenvalues beside large ones. Those of
nearly parallel gradients are lost in the Gramian, so where there are such they are
taken from a second one, of the gradients rotated by the eigenvectors of the first.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mtl_optax.core.arguments import checks
from mtl_optax.core.arguments.names import PerTask
from mtl_optax.core.arguments.preference import preference_or_uniform
from mtl_optax.core.method import gramian_method
from mtl_optax.core.solvers.jacobi import jacobi_eigh
from mtl_optax.core.solvers.linalg import dot
from mtl_optax.core.task_grads.form import TaskGrads
from mtl_optax.core.trees.any_lane import any_lane
from mtl_optax.core.weighting import Weighting, no_state

# An eigenvalue above this part of what orthogonal gradients would give has lost no more
# than five binary digits to rounding.
_TOLD = 2.0**-5


def _scale(values: jax.Array, keep: jax.Array, scale_mode: str) -> jax.Array:
    count = jnp.sum(keep)
    if scale_mode == "rmse":
        total = jnp.sum(jnp.where(keep, values, 0))
        return total / jnp.maximum(count, 1).astype(values.dtype)
    ascending = jnp.sort(jnp.where(keep, values, jnp.inf))
    place = 0 if scale_mode == "min" else jnp.maximum(count - 1, 0) // 2
    return jnp.where(count > 0, ascending[place], 1)


def _eigh(
    gramian: jax.Array, look: Callable[[jax.Array], TaskGrads] | None
) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and vectors; where the Gramian lost some, of rotated gradients."""
    values, vectors = jacobi_eigh(gramian)
    if look is None:
        return values, vectors

    def rotated() -> tuple[jax.Array, jax.Array]:
        again, turned = jacobi_eigh(look(vectors.T).gramian())
        return again, dot(vectors, turned)

    lost = ~jnp.all(values >= _TOLD * _apart(gramian, vectors))
    return lax.cond(any_lane(lost), rotated, lambda: (values, vectors))


def _apart(gramian: jax.Array, vectors: jax.Array) -> jax.Array:
    """What each combination of the gradients would weigh, were they orthogonal."""
    return dot(jnp.diag(gramian), vectors**2)


@gramian_method
def aligned_mtl(*, scale_mode: str = "min", preference: PerTask = None) -> Weighting:
    r"""Aligned gradients: the nearest orthogonal ones of equal length, summed.

    .. math::
      K = V \Lambda V^\top, \quad
      w = \sqrt{\sigma} \, V \Lambda^{-1/2} V^\top p, \quad d = \sum_t w_t \, g_t

    Args:
      num_tasks: T, a Python int.
      scale_mode: which eigenvalue becomes the common squared length: "min", "median"
        (the lower middle one) or "rmse" (their mean), among those above rounding.
      preference: p, `[T]` in sorted order of names or a dict by name; None is uniform,
        1/T over the active tasks.
      granularity: None, "leaf" or a tree of labels: the leaves that share a Gramian,
        and weights, as in :func:`mtl_optax.from_weighting`.

    Returns:
      A transformation of stacked task gradients `[T, *param]`, or lazy ones. Output
      scale: mean of gradients of length sqrt(sigma). T=1 gives the gradient itself.

    Raises:
      ValueError: for an unknown `scale_mode`, or a `preference` that is not `[T]`; for
        gradients that are not stacked, or another task count.

    Cost: at most T backward passes with lazy gradients; no state of its own; a T x T
    eigenvalue problem by Jacobi rotations, some 5 T steps on T x T matrices. Where an
    eigenvalue is below 1/32 of its value for orthogonal gradients, another one: for it
    gradients are read a second time, rotated leaf by leaf, T copies of one leaf more.

    Invariances: none to loss scales: gradients are made orthogonal with as little
    change as possible, which leaves most to the longest.

    Guarantee: none on conflicts. The gradients that it sums are orthogonal and of equal
    length, so no direction dominates.

    When not to use it: with "min" the update is as short as the shortest gradient, and
    nearly vanishes where gradients are nearly dependent; exactly dependent ones count
    as one, so there the update jumps.

    Example:
      >>> import jax.numpy as jnp, numpy as np, mtl_optax as mtl
      >>> tx = mtl.aligned_mtl(num_tasks=2)
      >>> params = {"w": jnp.zeros(2)}
      >>> grads = {"w": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
      >>> np.asarray(tx.update(grads, tx.init(params), params)[0]["w"]).round(4)
      array([0.5, 0.5], dtype=float32)

    References:
      Senushkin et al., `Independent Component Alignment for Multi-Task Learning
      <https://arxiv.org/abs/2305.19000>`_, 2023.
    """
    checks.one_of("scale_mode", scale_mode, ("min", "median", "rmse"))

    def update(
        gramian: jax.Array,
        state: tuple[()],
        *,
        active: jax.Array,
        look: Callable[[jax.Array], TaskGrads] | None = None,
        **extra: object,
    ) -> tuple[jax.Array, tuple[()]]:
        del extra
        values, vectors = _eigh(gramian, look)
        # An eigenvalue is rounding error if it is tiny beside what its combination of
        # gradients would weigh were they orthogonal, however short they are; and the
        # authors cut off at the precision of float64.
        floor = jnp.finfo(gramian.dtype).eps * _apart(gramian, vectors)
        floor = jnp.maximum(floor, float(jnp.finfo(jnp.float64).eps) * jnp.max(values))
        keep = values > gramian.shape[0] * floor
        values = jnp.where(keep, values, 1)
        scale = _scale(values, keep, scale_mode)
        chosen = preference_or_uniform(preference, active)
        along = dot(chosen, vectors)
        stretched = jnp.where(keep, along * jnp.sqrt(scale / values), 0)
        weights = dot(vectors, stretched)
        return jnp.where(jnp.any(keep), weights, chosen), state

    return Weighting(no_state(preference=preference), update)
