"""GradDrop's mask, for rows of gradients and for cotangents of features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.task_grads.at_features import FeatureTaskGrads
from mtl_optax.core.task_grads.data_axis import mean_over

Odds = Callable[[jax.Array], jax.Array]  # of the positive sign, from its purity


def uniforms_like(leaves: list[jax.Array], key: jax.Array) -> list[jax.Array]:
    """One number for each entry of each leaf, its first axis aside."""
    keys = jax.random.split(key, max(len(leaves), 1))
    pairs = zip(keys, leaves, strict=False)
    return [jax.random.uniform(k, leaf.shape[1:]) for k, leaf in pairs]


def drop_signs(
    rows: list[jax.Array], uniform: jax.Array, leak: jax.Array | None, odds: Odds
) -> jax.Array:
    """What is left of the sum of T rows."""
    rows = [row.astype(jnp.result_type(float)) for row in rows]
    return _mix(_shares(rows, uniform, leak, odds), rows)


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
    total = sum(rows[1:], rows[0])
    size = sum((jnp.abs(row) for row in rows[1:]), jnp.abs(rows[0]))
    chance = odds(0.5 * (1 + total / jnp.where(size > 0, size, 1)))
    shares = []
    for t, row in enumerate(rows):
        keep = ((chance > uniform) & (row > 0)) | ((chance < uniform) & (row < 0))
        shares.append(jnp.where(keep, 1, 0 if leak is None else leak[t]))
    return shares


def _mix(shares: list[jax.Array], rows: list[jax.Array]) -> jax.Array:
    terms = [share * row for share, row in zip(shares, rows, strict=True)]
    return sum(terms[1:], terms[0])
