"""Proximal inter-task affinity, and the task groups that it suggests (Jeong & Yoon)."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.solvers.affinity_propagation import affinity_propagation

# Below this a task's affinity for itself is taken for this (INFERRED): it is 0 before
# the task was first seen to gain from its own step.
_LEAST_OWN = 1e-12
_CONVERGENCE_ITER = 50  # the authors' setting; scikit-learn's default is 15


def proximal_affinity(
    affinity: jax.Array,
    group: jax.Array,
    before: jax.Array,
    after: jax.Array,
    decay: Any,
) -> jax.Array:
    r"""Affinity after one group's step, which changed the losses on one batch.

    .. math:: A_{st} \leftarrow (1 - \beta) A_{st} + \beta \, a_t, \quad
      a_t = \tfrac{1}{|G|} \Big( 1 - \frac{L_t^{\text{after}}}{L_t^{\text{before}}}
      \Big), \quad s \in G

    For s = t only if the task gained, :math:`a_t \ge 0`. For another t of the group, if
    one of both gained and the other lost, :math:`-\max(a_s, a_t)` stands for
    :math:`a_t`: what made the loser lose cannot be told apart.

    Args:
      affinity: `[T, T]`, of source s (row) on recipient t.
      group: `[T]` bool, the tasks to which the change is credited.
      before: `[T]`, losses; a task whose loss is not positive is left out, as is one
        whose change is not finite.
      after: `[T]`, losses after the step.
      decay: :math:`\beta`.

    Returns:
      The new affinity `[T, T]`; as it was for an empty group.
    """
    change = 1 - after / jnp.where(before > 0, before, 1)
    known = (before > 0) & jnp.isfinite(change)
    count = jnp.maximum(jnp.sum(group), 1).astype(affinity.dtype)
    change = jnp.where(known, change, 0) / count
    own, others = change[:, None], change[None, :]

    inside = group[:, None] & group[None, :]
    torn = inside & (jnp.sign(own) * jnp.sign(others) < 0)
    credit = jnp.where(torn, -jnp.maximum(own, others), others)
    seen = group[:, None] & known[None, :] & (known[:, None] | ~inside)
    itself = jnp.eye(group.shape[0], dtype=bool)
    seen &= ~itself | (others >= 0)
    return jnp.where(seen, (1 - decay) * affinity + decay * credit, affinity)


def affinity_groups(
    affinity: jax.Array, preference: Any, ready: jax.Array, groups: jax.Array
) -> jax.Array:
    r"""Groups by affinity propagation on the symmetrised, normalised affinity.

    .. math:: X = (Z + Z^\top) / 2, \quad Z_{st} = A_{st} / A_{tt}

    Args:
      affinity: `[T, T]`.
      preference: as in `affinity_propagation`, on the scale where :math:`X_{tt} = 1`.
      ready: `[T]` bool, the tasks to group.
      groups: `[T]` int32, kept for the others, and for all where it does not converge.

    Returns:
      `[T]` int32, equal for tasks of one group: the index of its first task.
    """
    own = jnp.maximum(jnp.diagonal(affinity), _LEAST_OWN)
    scaled = affinity / own[None, :]
    found = affinity_propagation(
        (scaled + scaled.T) / 2,
        preference,
        convergence_iter=_CONVERGENCE_ITER,
        present=ready,
    )
    return jnp.where(ready & found.converged, found.labels, groups)
