"""GradDrop's mask, for rows of gradients and for cotangents of features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.arguments.random import uniforms
from mtl_optax.core.task_grads.at_features import FeatureTaskGrads
from mtl_optax.core.task_grads.data_axis import mean_over

# Of the positive sign, from its purity; None is that itself.
Odds = Callable[[jax.Array], jax.Array] | None


def uniforms_like(leaves: list[jax.Array], key: jax.Array) -> list[jax.Array]:
    """One number for each entry of each leaf, its first axis aside."""
    keys = jax.random.split(key, max(len(leaves), 1))
    pairs = zip(keys, leaves, strict=False)
    return [uniforms(k, leaf.shape[1:]) for k, leaf in pairs]


def drop_signs(
    rows: list[jax.Array], uniform: jax.Array, leak: jax.Array | None, odds: Odds
) -> jax.Array:
    """What is left of the sum of T rows."""
    rows = [row.astype(jnp.result_type(float)) for row in rows]
    if leak is not None:
        return _mix(_shares(rows, uniform, leak, odds), rows)
    above, below = _by_sign(rows)
    more, less = _kept_signs(above, below, uniform, odds)
    return jnp.where(more, above, jnp.where(less, -below, 0))


def drop_features(
    gradients: FeatureTaskGrads,
    draws: list[jax.Array],
    leak: jax.Array | None,
    odds: Odds,
) -> Any:
    """What is left of the sum of the tasks' cotangents of the features."""
    cotangents = gradients.cotangents.computed()
    tasks = range(gradients.num_tasks)
    per_task = [jax.tree.leaves(cotangents.row(task)) for task in tasks]
    kept = []
    features = jax.tree.leaves(gradients.features)
    for z, uniform, *rows in zip(features, draws, *per_task, strict=True):
        rows = [row.astype(jnp.result_type(float)) for row in rows]
        signed = [jnp.sum(jnp.sign(z) * row, axis=0) for row in rows]
        # Over all devices, so that they drop the same entries.
        signed = mean_over(signed, gradients.axis_name)
        shares = _shares(signed, uniform, leak, odds)
        kept.append(_mix([share[None] for share in shares], rows).astype(z.dtype))
    return jax.tree.unflatten(jax.tree.structure(gradients.features), kept)


def _shares(
    rows: list[jax.Array], uniform: jax.Array, leak: jax.Array | None, odds: Odds
) -> list[jax.Array]:
    """Which part of each row stays, written out over tasks so that it fuses."""
    more, less = _kept_signs(*_by_sign(rows), uniform, odds)
    shares = []
    for t, row in enumerate(rows):
        keep = (more & (row > 0)) | (less & (row < 0))
        shares.append(jnp.where(keep, 1, 0 if leak is None else leak[t]))
    return shares


def _by_sign(rows: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Sums of what is positive, and of the sizes of what is negative."""
    above, below = (
        [jnp.maximum(sign * row, 0) for row in rows] for sign in (1.0, -1.0)
    )
    return sum(above[1:], above[0]), sum(below[1:], below[0])


def _kept_signs(
    above: jax.Array, below: jax.Array, uniform: jax.Array, odds: Odds
) -> tuple[jax.Array, jax.Array]:
    """Where positive entries stay, and where negative ones do."""
    above, below = 0.5 * above, 0.5 * below  # whose sum is a number, too
    size, uniform = above + below, uniform.astype(above.dtype)
    if odds is None:
        # Without a quotient, of which XLA would keep an array, all of this is fused
        # into the optimiser.
        bound = uniform * size
        return above > bound, above < bound
    chance = odds(0.5 * (1 + (above - below) / jnp.where(size > 0, size, 1)))
    return chance > uniform, chance < uniform


def _mix(shares: list[jax.Array], rows: list[jax.Array]) -> jax.Array:
    terms = [share * row for share, row in zip(shares, rows, strict=True)]
    return sum(terms[1:], terms[0])
