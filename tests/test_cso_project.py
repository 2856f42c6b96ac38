"""Channels that give way to their first task, against the loops of the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl


def projected(stacked, first):
    """Sum over tasks, group by group and task by task, in float64."""
    total = np.zeros_like(stacked[0])
    for task in range(len(stacked)):
        channels = first == task
        reference = stacked[task][..., channels]
        square = np.sum(reference**2)
        for row in stacked:
            part = row[..., channels]
            product = np.sum(part * reference)
            if product < 0 and square > 0:
                part = part - product / square * reference
            total[..., channels] += part
    nobody = ~np.isin(first, range(len(stacked)))
    total[..., nobody] = np.sum(stacked, axis=0)[..., nobody]
    return total


@functools.cache
def compiled(num_tasks):
    def update(stacked, first):
        return mtl.cso_project(num_tasks, first).update(stacked, ())[0]

    return jax.jit(update)


def test_hand_example():
    """Rows of the specification are channels, our columns."""
    grads = np.array([[[1, 0], [1, 0]], [[-1, 1], [-1, -1]]], np.float32).mT
    update = compiled(2)(jnp.asarray(grads), jnp.array([1, 0]))
    np.testing.assert_allclose(update.T, [[-0.5, 1.5], [1, -1]], rtol=1e-6)


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 3, 4, 6)], ids=str)
def test_is_its_definition_and_harms_no_first_task(num_tasks, shape):
    rng = np.random.default_rng(num_tasks)
    conflicts = 0
    for _ in range(5):
        scales = 10.0 ** rng.uniform(-2, 2, (num_tasks, *(1,) * len(shape)))
        stacked = (scales * rng.normal(size=(num_tasks, *shape))).astype("float32")
        stacked[0, ..., 1] = 0
        first = rng.integers(-1, num_tasks, shape[-1])
        got = np.asarray(compiled(num_tasks)(stacked, jnp.asarray(first)), np.float64)
        wide = stacked.astype(np.float64)
        wanted = projected(wide, first)
        size = np.abs(wide).max()
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * size)
        for task in range(num_tasks):
            mine = first == task
            reference = wide[task][..., mine]
            gain = np.sum(wanted[..., mine] * reference)
            assert gain >= np.sum(reference**2) * (1 - 1e-9)
        conflicts += np.any(np.abs(wanted - wide.sum(axis=0)) > 1e-3 * size)
    assert conflicts


def test_a_channel_whose_first_task_is_away_gets_the_plain_sum():
    grads = {"w": jnp.array([[1.0, 1], [-2, -3], [jnp.nan, jnp.nan]])}
    priority = {"w": jnp.array([2, 0])}
    active = jnp.array([True, True, False])
    tx = mtl.cso_project(3, priority)
    update, _ = tx.update(grads, tx.init(None), active=active)
    np.testing.assert_allclose(update["w"], [-1, 1])


def test_a_priority_may_be_a_prefix_a_function_or_an_argument():
    params = {"layer": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}
    rng = np.random.default_rng(0)
    grads = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=(2, *p.shape)), p.dtype), params
    )
    first = jnp.array([1, 0])
    whole = {"layer": {"kernel": first, "bias": first}}
    wanted, _ = mtl.cso_project(2, whole).update(grads, (), params)
    for priority in ({"layer": first}, lambda params: whole):
        got, _ = mtl.cso_project(2, priority).update(grads, (), params)
        jax.tree.map(np.testing.assert_array_equal, got, wanted)
    got, _ = mtl.cso_project(2, None).update(grads, (), params, priority=whole)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    plain, _ = mtl.cso_project(2, None).update(grads, (), params)
    total = jax.tree.map(lambda g: g[0] + g[1], grads)
    jax.tree.map(np.testing.assert_array_equal, plain, total)


def test_errors_name_the_leaf_and_the_cure():
    grads = {"w": jnp.zeros((2, 3, 4))}
    for wrong in (jnp.zeros(4), jnp.zeros(3, int), jnp.zeros((2, 4), int)):
        with pytest.raises(ValueError, match=r"leaf \['w'\].*shape \(4,\)"):
            mtl.cso_project(2, {"w": wrong}).update(grads, ())
    with pytest.raises(ValueError, match="scalar leaf lacks"):
        mtl.cso_project(2, jnp.zeros(1, int)).update(jnp.zeros(2), ())
    with pytest.raises(ValueError, match="needs the extra argument params="):
        mtl.cso_project(2, lambda params: None).update(grads, ())
