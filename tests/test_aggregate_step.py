"""What a step of aggregation and Adam writes to memory, and draws."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

import mtl_optax as mtl

SHAPE = (96, 128)


def stacked(num_tasks):
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(num_tasks, *SHAPE)), jnp.float32)}


def arrays_written(method, num_tasks):
    """Those of a gradient's size or more that every step writes, branches aside."""
    tx = optax.chain(method, optax.adam(1e-3))
    params = {"w": jnp.zeros(SHAPE)}

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = step.lower(params, tx.init(params), stacked(num_tasks)).compile()
    main = compiled.as_text().split("ENTRY ")[1]
    made = re.findall(r"= f32\[([\d,]+)\]\S* ([\w-]+)\(", main)
    views = {"parameter", "bitcast", "get-tuple-element", "constant"}
    return [
        operation
        for shape, operation in made
        if operation not in views
        and np.prod([int(n) for n in shape.split(",")]) >= np.prod(SHAPE)
    ]


# Adam writes parameters and two moments. Sums of a few gradients and GradDrop's choice
# are made inside of what reads them; that of many is written once.
@pytest.mark.parametrize(
    ("method", "num_tasks", "more"),
    [(mtl.mgda, 2, 0), (mtl.mgda, 6, 1), (partial(mtl.graddrop, key=0), 3, 0)],
)
@pytest.mark.optimized
@pytest.mark.slow
def test_a_step_writes_no_copy_of_a_gradient(method, num_tasks, more, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    written = arrays_written(method(num_tasks), num_tasks)
    assert len(written) == 3 + more, written


@pytest.mark.parametrize("num_tasks", [2, 6])
def test_noise_is_zero_and_a_short_sum_is_not(num_tasks):
    grads = stacked(2)["w"][0]
    for rest, kept in ((0.0, False), (1e-3, True)):
        rows = [grads, -(1 - rest) * grads, *[0 * grads] * (num_tasks - 2)]
        tx = mtl.from_weighting(_equal(), num_tasks)
        params = {"w": jnp.zeros(SHAPE)}
        update, _ = jax.jit(tx.update)({"w": jnp.stack(rows)}, tx.init(params))
        expected = rest * grads if kept else 0 * grads
        np.testing.assert_allclose(update["w"], expected, atol=3e-7)
        assert bool(jnp.any(update["w"] != 0)) == kept


def _equal():
    def update(gramian, state, *, losses, active, **extra):
        del losses, extra
        return jnp.ones(gramian.shape[0]), state

    return mtl.Weighting(init=lambda num_tasks: (), update=update)


def test_parts_of_gradients_with_a_gramian_of_the_whole_in_shard_map():
    kinds = (AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("parts",), kinds, devices=jax.devices()[:2])
    tx = mtl.mgda(2)
    grads, params = stacked(2), {"w": jnp.zeros(SHAPE)}
    cut = {"w": PartitionSpec(None, "parts")}

    def local(part):
        gramian = jax.lax.psum(mtl.gramian(part), "parts")
        own = jax.tree.map(lambda x: x[0], part)
        return tx.update(part, tx.init(own), own, gramian=gramian)[0]

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(cut,), out_specs={"w": PartitionSpec("parts")}
    )
    expected, _ = tx.update(grads, tx.init(params), params)
    found = jax.jit(mapped)(grads)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-5, atol=1e-5)


def test_graddrop_draws_each_coordinate_leaf_and_step_apart():
    size = 50_000
    leaf = jnp.stack([jnp.full(size, 3.0), jnp.full(size, -1.0)])
    grads = {"a": leaf, "b": leaf.reshape(2, 250, 200)}
    params = jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), grads)
    tx = mtl.graddrop(2, key=0)
    step = jax.jit(tx.update)
    state, kept = tx.init(params), []
    for _ in range(2):
        update, state = step(grads, state)
        kept += [np.ravel(x) == 3 for x in jax.tree.leaves(update)]
        assert {float(x) for x in np.unique(update["a"])} == {3.0, -1.0}
    # Of 0.75 +- 5 standard errors, whatever the neighbour and the other draws are.
    room = 5 * np.sqrt(0.75 * 0.25 / size)
    for i, one in enumerate(kept):
        assert abs(one.mean() - 0.75) < room
        for other in (*kept[:i], np.roll(one, 1), np.roll(one, 200)):
            assert abs((one & other).mean() - 0.75**2) < room


def test_aligned_mtl_looks_again_for_the_lanes_that_need_it():
    rng = np.random.default_rng(0)
    near = rng.normal(size=(2, 40))
    near[1] = near[0] + 1e-2 * near[1]
    both = jnp.asarray([rng.normal(size=(2, 40)), near], jnp.float32)
    tx = mtl.aligned_mtl(2)

    def update(rows):
        params = {"w": jnp.zeros(40)}
        return tx.update({"w": rows}, tx.init(params), params)[0]["w"]

    found = jax.jit(jax.vmap(update))(both)
    for one, rows in zip(found, np.asarray(both, np.float64), strict=True):
        left, _, right = np.linalg.svd(rows, full_matrices=False)
        shortest = np.linalg.svd(rows)[1][-1]
        expected = shortest * (left @ right).mean(axis=0)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4 * scale)
