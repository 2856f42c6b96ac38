"""M-ConFIG against its algorithm in NumPy, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stale_runs import PARAMS, lazily, numpy_rows, run, stacks

import mtl_optax as mtl


def numpy_config(rows):
    """The authors' equation, by the pseudo-inverse of the unit rows."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    u = np.linalg.pinv(units) @ np.ones(len(rows))
    u /= np.linalg.norm(u)
    return (rows @ u).sum() * u


def numpy_mconfig(grads, num_tasks, b1, b2, eps=1e-8):
    f, s, k = np.zeros(10), np.zeros(10), 0
    turns = [[i % num_tasks] for i in range(len(grads))]
    for rows in numpy_rows(grads, num_tasks, b1, turns):
        if rows is None:
            yield np.zeros(10)
            continue
        k += 1
        d = numpy_config(rows)
        new = d * (1 - b1**k)
        s = b2 * s + (1 - b2) * ((new - b1 * f) / (1 - b1)) ** 2
        f = new
        yield d / (np.sqrt(s / (1 - b2**k)) + eps)


@pytest.mark.parametrize("lazy", [False, True])
def test_mconfig_is_its_algorithm(lazy):
    grads = stacks(3, 8)
    if lazy:
        found, _ = lazily(mtl.mconfig(3, 0.8, 0.9), grads, 3)
    else:
        found, _ = run(mtl.mconfig(3, 0.8, 0.9), grads)
    wanted = np.array(list(numpy_mconfig(grads, 3, 0.8, 0.9)))
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


def test_mconfig_by_hand():
    """Section 1 of the specification: zero, then d = 6, and an update of 1."""
    tx, params = mtl.mconfig(2), jnp.zeros(1)
    update, state = tx.update(jnp.array([[2.0], [9.0]]), tx.init(params), params)
    assert update == 0
    update, state = tx.update(jnp.array([[9.0], [4.0]]), state, params)
    np.testing.assert_allclose(update, 1, rtol=1e-6)
    moments = [optax.tree.get(state, f"{k}_moment") for k in ("first", "second")]
    np.testing.assert_allclose(moments, [[6], [36]], rtol=1e-6)


def test_mconfig_separate_with_all_tasks_is_adam_a_task():
    """The form that needs no stale rows, from this library's parts."""
    grads = stacks(3, 6)
    found, _ = run(mtl.mconfig(3, variant="separate", refresh=3), grads)
    adam = mtl.per_task(optax.scale_by_adam(), num_tasks=3)
    wanted, _ = run(optax.chain(adam, mtl.conflictfree(3)), grads)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_bfloat16_gradients():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    grads = [jax.tree.map(lambda x: jnp.bfloat16(x), g) for g in stacks(2, 3)]
    tx = optax.chain(mtl.mconfig(2), optax.scale(-1e-3))
    state = tx.init(params)
    for g in grads:
        update, state = tx.update(g, state, params)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(update))
    rows = optax.tree.get(state, "averages")
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(rows))
