"""Projection of a combination of gradients on the cone that conflicts with none."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtl_optax.core.solvers.linalg import cancels, cosine_matrix, dot
from mtl_optax.core.solvers.nonnegative_qp import nonnegative_qp

Array = jax.Array


@jax.jit
def project_dual_cone(gramian: Array, weights: Array) -> Array:
    """Weights of the projection of `sum_i weights_i g_i` on `{d: <g_i, d> >= 0}`.

    That is `argmin v'Gv` over `v >= weights`. Rows of zero norm keep their weight.
    """
    cosines, norms = cosine_matrix(gramian)
    lift = nonnegative_qp(cosines, dot(cosines, norms * weights))
    positive = norms > 0
    return weights + jnp.where(positive, lift / jnp.where(positive, norms, 1), 0)


def regularised_projection(gramian: Array, weights: Array, reg_eps: ArrayLike) -> Array:
    """`project_dual_cone` on the Gramian over its trace, `reg_eps` on the diagonal.

    Exactly 0 where rounding is all that is left of a projection, and could conflict.
    """
    trace = jnp.trace(gramian)
    # As it is without reg_eps: over the trace, short rows beside long ones underflow.
    scaled = (jnp.asarray(reg_eps) > 0) & (trace > 0)
    regularised = gramian / jnp.where(scaled, trace, 1)
    # TorchJD, which reg_eps reproduces, takes a trace below 1e-4 for zero.
    too_small = (jnp.asarray(reg_eps) > 0) & (trace < 1e-4)
    regularised = jnp.where(too_small, 0, regularised)
    regularised += reg_eps * jnp.eye(gramian.shape[0], dtype=gramian.dtype)
    projected = project_dual_cone(regularised, weights)
    return jnp.where(cancels(projected, regularised), 0, projected)
