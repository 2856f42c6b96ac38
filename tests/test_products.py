"""Gramian and weighted sum: every form gives the same numbers, at full precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import as_rows

import mtl_optax as mtl
from mtl_optax.core.task_grads import leaf_products
from mtl_optax.core.task_grads.deferred import Deferred

SHAPES = {
    "a": (3, 5),
    "scalar": (),
    "long": (3, 5000),
    "exact": (2 * leaf_products.SLICE,),
}


def make(num_tasks, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        name: jnp.asarray(rng.normal(size=(num_tasks, *shape)), dtype)
        for name, shape in SHAPES.items()
    }


def matrix(stacked):
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(stacked)]
    return np.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)


@pytest.mark.parametrize("num_tasks", [1, 2, 4, 9])
@pytest.mark.parametrize("form", ["stacked", "rows"])
@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.slow
def test_gramian_forms(num_tasks, form, sliced, monkeypatch):
    stacked = make(num_tasks)
    if sliced:  # the form that a single CPU device takes; these tests run on eight
        monkeypatch.setattr(jax, "device_count", lambda: 1)
    gradients = stacked if form == "stacked" else as_rows(stacked, num_tasks)
    got = jax.jit(lambda: mtl.gramian(gradients))()
    expected = matrix(stacked) @ matrix(stacked).T
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * expected[0, 0])
    np.testing.assert_array_equal(got, got.T)


# Few tasks, number by number; more, whole leaves and slices; many, longer slices.
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4, 16, 64])
@pytest.mark.slow
def test_gramian_on_one_cpu(num_tasks, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    slice_ = leaf_products.SLICE
    sizes = (1, 5, slice_, 3 * slice_ // 2 + 1, 2 * slice_ + 3, 2**20 // num_tasks + 7)
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=(num_tasks, n)).astype(np.float32) for n in sizes]
    expected = [x.astype(np.float64) @ x.T.astype(np.float64) for x in leaves]
    found = jax.jit(lambda leaves: [mtl.gramian([x]) for x in leaves])(leaves)
    for one, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, right, rtol=1e-6, atol=2e-7 * np.max(right))
        np.testing.assert_array_equal(one, one.T)


@pytest.mark.parametrize("num_tasks", [2, 4])
@pytest.mark.parametrize("form", ["stacked", "rows"])
@pytest.mark.slow
def test_slices_of_half_precision_under_vmap_and_grad(num_tasks, form, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    size = 2**20 // num_tasks + 7
    rng = np.random.default_rng(0)
    half = jnp.asarray(rng.normal(size=(2, num_tasks, size)), jnp.bfloat16)

    def largest(stack):
        rows = {"a": stack} if form == "stacked" else as_rows({"a": stack}, num_tasks)
        return mtl.gramian(rows)[0, -1]

    each = [np.asarray(x, np.float64) for x in half]
    found = jax.jit(jax.vmap(largest))(half)
    np.testing.assert_allclose(found, [x[0] @ x[-1] for x in each], rtol=2e-4)
    wide = half[0].astype(jnp.float32)
    slope = np.zeros_like(wide)
    slope[0], slope[-1] = wide[-1], wide[0]
    np.testing.assert_allclose(jax.jit(jax.grad(largest))(wide), slope, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_gramian_of_half_precision_accumulates_in_float32(dtype):
    stacked = make(3, dtype)
    got = mtl.gramian(stacked)
    assert got.dtype == jnp.float32
    expected = matrix(stacked) @ matrix(stacked).T
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * expected[0, 0])


def test_gramian_of_float32_is_float64_under_x64(x64):
    got = mtl.gramian(make(3, jnp.float32))
    assert got.dtype == jnp.float64
    expected = matrix(make(3, jnp.float32))
    np.testing.assert_allclose(got, expected @ expected.T, rtol=1e-13, atol=1e-10)


@pytest.mark.parametrize("num_tasks", [1, 2, 4, 5, 12])
@pytest.mark.parametrize("form", ["stacked", "rows"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.slow
def test_combine_forms(num_tasks, form, masked):
    stacked = make(num_tasks)
    weights = jnp.linspace(-1, 2, num_tasks)
    active = jnp.arange(num_tasks) % 2 == 0 if masked else None
    if masked:  # what an absent task may hold
        stacked = jax.tree.map(lambda x: x.at[1::2].set(jnp.nan), stacked)
        weights = jnp.where(active, weights, 0)
    gradients = stacked if form == "stacked" else as_rows(stacked, num_tasks)
    got = jax.jit(lambda w: mtl.combine(gradients, w, active))(weights)
    expected = np.asarray(weights, np.float64) @ np.nan_to_num(matrix(stacked))
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(got)])
    np.testing.assert_allclose(flat, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_tasks", [2, 6])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_combine_keeps_the_leaf_dtype(num_tasks, dtype):
    got = mtl.combine(make(num_tasks, dtype), jnp.ones(num_tasks))
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(dtype)}


def test_combine_block_by_block():
    stacked = make(2)
    weights = jnp.arange(8.0).reshape(4, 2)
    got = Deferred.stacked(stacked).pull(weights, (0, 1, 2, 3))
    for i, name in enumerate(sorted(SHAPES)):
        expected = weights[i, 0] * stacked[name][0] + weights[i, 1] * stacked[name][1]
        np.testing.assert_allclose(got[name], expected, rtol=1e-6)
