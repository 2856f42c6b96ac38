"""GradDrop's mask, for rows of gradients and for cotangents of features."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_optax.core.lazy import Features, LazyTaskGrads


def uniforms_like(leaves: list[jax.Array], key: jax.Array) -> list[jax.Array]:
    """One number for each entry of each leaf, its first axis aside."""
    keys = jax.random.split(key, max(len(leaves), 1))
    pairs = zip(keys, leaves, strict=False)
    return [jax.random.uniform(k, leaf.shape[1:]) for k, leaf in pairs]


def drop_signs(
    rows: list[jax.Array], uniform: jax.Array, leak: jax.Array | None
) -> jax.Array:
    """What is left of the sum of T rows."""
    rows = [row.astype(jnp.result_type(float)) for row in rows]
    return _mix(_shares(rows, uniform, leak), rows)


def features_of(task_gradients: Any) -> Features:
    """The features behind lazy gradients, or an error."""
    lazy = isinstance(task_gradients, LazyTaskGrads)
    features = task_gradients.features if lazy else None
    if features is None:
        raise ValueError(
            'graddrop(at="features") needs gradients at the representation: make them '
            "with mtl_optax.feature_task_grads(features_fn, heads_fn), or leave "
            'at="gradients".'
        )
    if any(jnp.ndim(z) == 0 for z in jax.tree.leaves(features.value)):
        raise ValueError(
            'graddrop(at="features"): a leaf of the features is a scalar, but the '
            "first axis of each must be the batch."
        )
    return features


def drop_features(
    lazy: LazyTaskGrads,
    draws: list[jax.Array],
    leak: jax.Array | None,
    active: jax.Array | None,
) -> Any:
    """What is left of the sum of the tasks' cotangents of the features."""
    features = features_of(lazy)
    leaves, treedef = jax.tree.flatten(features.value)
    per_task = [jax.tree.leaves(tree) for tree in features.gradients.rows().trees]
    kept = []
    for z, uniform, *rows in zip(leaves, draws, *per_task, strict=True):
        rows = [row.astype(jnp.result_type(float)) for row in rows]
        if active is not None:
            rows = [jnp.where(active[t], row, 0) for t, row in enumerate(rows)]
        signed = [jnp.sum(jnp.sign(z) * row, axis=0) for row in rows]
        # Over all devices, so that they drop the same entries.
        shares = _shares(lazy.mean(signed), uniform, leak)
        kept.append(_mix([share[None] for share in shares], rows).astype(z.dtype))
    return jax.tree.unflatten(treedef, kept)


def _shares(
    rows: list[jax.Array], uniform: jax.Array, leak: jax.Array | None
) -> list[jax.Array]:
    """Which part of each row stays, written out over tasks so that it fuses."""
    total = sum(rows[1:], rows[0])
    size = sum((jnp.abs(row) for row in rows[1:]), jnp.abs(rows[0]))
    purity = 0.5 * (1 + total / jnp.where(size > 0, size, 1))
    shares = []
    for t, row in enumerate(rows):
        keep = ((purity > uniform) & (row > 0)) | ((purity < uniform) & (row < 0))
        shares.append(jnp.where(keep, 1, 0 if leak is None else leak[t]))
    return shares


def _mix(shares: list[jax.Array], rows: list[jax.Array]) -> jax.Array:
    terms = [share * row for share, row in zip(shares, rows, strict=True)]
    return sum(terms[1:], terms[0])
