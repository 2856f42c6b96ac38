"""Proximal affinity, and the groups it gives, against the authors' rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.core.solvers.proximal_affinity import affinity_groups, proximal_affinity


def plain_affinity(affinity, group, before, after, decay):
    """The authors' rules, entry by entry."""
    new = affinity.copy()
    change = (1 - after / before) / group.sum()
    for s in np.flatnonzero(group):
        for k in range(len(group)):
            credit = change[k]
            if before[k] <= 0 or (k == s and credit < 0):
                continue
            if group[k] and k != s:
                if before[s] <= 0:
                    continue
                if credit * change[s] < 0:
                    credit = -max(credit, change[s])
            new[s, k] = (1 - decay) * affinity[s, k] + decay * credit
    return new


@pytest.mark.parametrize("seed", range(20))
def test_sign_rules(seed):
    rng = np.random.default_rng(seed)
    affinity = rng.standard_normal((5, 5)).astype(np.float32)
    before = rng.uniform(-0.3, 2, 5).astype(np.float32)
    after = before + 0.3 * rng.standard_normal(5).astype(np.float32)
    after[0] = before[0]
    group = rng.random(5) < 0.6
    group[rng.integers(5)] = True
    got = proximal_affinity(*map(jnp.asarray, (affinity, group, before, after)), 0.1)
    wanted = plain_affinity(affinity, group, before, after, 0.1)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_losses_that_are_not_finite_are_not_measured():
    before = jnp.array([1.0, jnp.nan, 2.0])
    after = jnp.array([0.5, 1.0, jnp.inf])
    group = jnp.array([True, True, False])
    got = proximal_affinity(jnp.zeros((3, 3)), group, before, after, 1.0)
    np.testing.assert_array_equal(got, [[0.25, 0, 0], [0, 0, 0], [0, 0, 0]])


TOY = np.full((4, 4), 0.1, np.float32) + 0.9 * np.eye(4, dtype=np.float32)
TOY[[0, 1, 2, 3], [1, 0, 3, 2]] = 0.9, 0.9, 0.8, 0.8


def grouped(affinity, preference=None, ready=None, groups=None):
    affinity = jnp.asarray(affinity, float)
    index = jnp.arange(affinity.shape[0], dtype=jnp.int32)
    ready = index >= 0 if ready is None else jnp.asarray(ready)
    return affinity_groups(
        affinity, preference, ready, index if groups is None else groups
    )


def test_toy_of_the_specification():
    np.testing.assert_array_equal(grouped(TOY), [0, 0, 2, 2])
    # Columns count relative to their task's affinity for itself.
    scaled = TOY * np.array([1e-4, 1e-5, 1e-3, 1e-4])[None, :]
    np.testing.assert_array_equal(grouped(scaled), [0, 0, 2, 2])


@pytest.mark.parametrize("likeness", [-0.5, 0.0, 0.5, 0.999])
def test_two_tasks_never_merge_by_default(likeness):
    pair = np.array([[1.0, likeness], [likeness, 1.0]])
    np.testing.assert_array_equal(grouped(pair), [0, 1])
    np.testing.assert_array_equal(grouped(pair, preference=likeness - 0.1), [0, 0])


def test_groups_are_kept_where_there_is_no_answer():
    before = jnp.array([0, 0, 0, 3], jnp.int32)
    broken = jnp.asarray(TOY).at[0, 1].set(jnp.nan)
    np.testing.assert_array_equal(grouped(broken, groups=before), before)
    # A task that is not ready stays where it was; the others group among themselves.
    ready = [True, True, False, False]
    merged = grouped(TOY, -1.0, ready, jnp.array([0, 1, 2, 3], jnp.int32))
    np.testing.assert_array_equal(merged, [0, 0, 2, 3])
