"""What MT-SAC is made of: networks, the ring buffer, the squashed Gaussian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax import rl
from mtl_optax.rl.mtsac import tanh_gaussian

SHALLOW = {"num_layers": 2, "num_modules": 2, "module_dim": 256}
DEEP = {"num_layers": 4, "num_modules": 4, "module_dim": 128}
SMALL = {"num_layers": 2, "num_modules": 2, "module_dim": 3, "embed_dim": 4}
NETWORKS = {
    "multi_head": rl.multi_head(3, 2, 2, hidden=(4,)),
    "one_hot_mlp": rl.one_hot_mlp(3, 2, 2, hidden=(4,)),
    "soft_modules": rl.soft_modules(3, 2, 2, **SMALL, gate_dim=5),
    "independent": rl.independent(3, rl.multi_head(1, 2, 2, hidden=(4,))),
}


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: rl.multi_head(10, 39, 8), 372_880),
        (lambda: rl.one_hot_mlp(10, 39, 8), 344_008),
        (lambda: rl.multi_head(50, 39, 8), 517_200),
        (lambda: rl.one_hot_mlp(50, 39, 8), 360_008),
        (lambda: rl.soft_modules(10, 39, 8, **SHALLOW), 691_022),
        (lambda: rl.soft_modules(10, 39, 8, **DEEP), 792_444),
        (lambda: rl.soft_modules(10, 43, 1, **SHALLOW), 690_823),
        (lambda: rl.soft_modules(10, 43, 1, **DEEP), 793_141),
    ],
)
def test_numbers_of_parameters_are_those_published(make, wanted):
    params = jax.eval_shape(make().init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == wanted


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=pytest.mark.slow if x != "multi_head" else ())
        for x in NETWORKS
    ],
)
def test_what_is_owned_is_read_by_its_task_alone(name):
    """And what is shared by all; one row of gradients, one of outputs a task."""
    network = NETWORKS[name]
    x = jax.random.normal(jax.random.key(1), (3, 5, 2))

    @jax.jit
    def look(key):
        params = network.init(key)
        params = jax.tree.map(lambda p: p + 0.3, params)  # no dead last layer
        jacobian = jax.jacrev(lambda p: (network.apply(p, x) ** 2).sum(axis=(1, 2)))
        by_rows = jax.jacrev(lambda x: network.apply(params, x).sum(axis=(1, 2)))(x)
        return network.apply(params, x), jacobian(params), by_rows

    y, grads, by_rows = look(jax.random.key(0))
    assert y.shape == (3, 5, 2)
    own = np.abs(by_rows).sum(axis=(2, 3)) > 0
    np.testing.assert_array_equal(own, np.eye(3, dtype=bool))
    shared = network.shared(jax.tree.map(lambda g: g[0], grads))
    for mine, g in zip(jax.tree.leaves(shared), jax.tree.leaves(grads), strict=True):
        if not mine:  # leaves [K, ...]: the row of another has no part in a loss
            off = np.abs(g).reshape(3, 3, -1).sum(axis=-1)[~np.eye(3, dtype=bool)]
            np.testing.assert_array_equal(off, 0)
        else:
            assert (np.abs(g).reshape(3, -1).sum(axis=1) > 0).all()


def test_a_task_is_told_by_its_one_hot_in_the_order_of_tasks():
    """Row t of the one-hot part of the first kernel is read by task t."""
    network = NETWORKS["one_hot_mlp"]
    params = network.init(jax.random.key(0))
    kernel = params["trunk"][0]["kernel"]
    assert kernel.shape == (5, 4)
    params["trunk"][0]["kernel"] = (
        jnp.zeros_like(kernel).at[2:].set(jnp.arange(1.0, 4)[:, None])
    )
    params["head"] = {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}
    y = network.apply(params, jnp.ones((3, 1, 2)))
    np.testing.assert_allclose(y[:, 0, 0], [4, 8, 12])


def test_a_critic_has_one_output():
    twin = rl.twin(NETWORKS["multi_head"])
    params = jax.eval_shape(twin.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"one output a row.*out_dim=1"):
        jax.eval_shape(twin.apply, params, jnp.zeros((3, 5, 2)))


def test_critics_of_a_pair_start_apart():
    twin = rl.twin(rl.multi_head(2, 2, 1, hidden=(3,)))
    params = jax.jit(twin.init)(jax.random.key(0))
    first, second = (params[i]["trunk"][0]["kernel"] for i in ("0", "1"))
    assert (first != second).all()
    assert jax.tree.leaves(twin.shared(params)).count(False) == 4


# The squashed Gaussian


def test_log_densities_are_those_of_the_change_of_variables():
    """At u up to 20 either way, beside float64 in NumPy; gradients are finite."""
    u = np.linspace(-20, 20, 41)
    mean, log_std = np.tile([0.3, -0.2], (41, 1)), np.tile([0.1, -1.0], (41, 1))
    noise = (np.stack([u, u[::-1]], axis=1) - mean) / np.exp(log_std)
    size = np.abs(np.stack([u, u[::-1]], axis=1))
    slope = np.log(4) - 2 * size - 2 * np.log1p(np.exp(-2 * size))
    wanted = (-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - slope).sum(axis=1)
    outputs = jnp.asarray(np.concatenate([mean, log_std], axis=1), jnp.float32)

    @jax.jit
    def look(outputs, noise):
        log_probs = lambda outputs: tanh_gaussian(outputs, noise)[1].sum()  # noqa: E731
        return *tanh_gaussian(outputs, noise), jax.grad(log_probs)(outputs)

    action, log_prob, grads = look(outputs, jnp.asarray(noise, jnp.float32))
    np.testing.assert_allclose(log_prob, wanted, rtol=2e-6)
    np.testing.assert_allclose(action[:, 0], np.tanh(u), rtol=1e-5, atol=1e-6)
    # d log pi / d mean = 2 tanh(u), d / d log_std = -1 + 2 tanh(u) sigma eps
    t = np.tanh(np.stack([u, u[::-1]], axis=1))
    by_std = -1 + 2 * t * np.exp(log_std) * noise
    wanted = np.concatenate([2 * t, by_std], axis=1)
    np.testing.assert_allclose(grads, wanted, rtol=2e-5, atol=2e-5)


def test_densities_integrate_to_one():
    """On a grid of actions: the density is one of actions and not of u."""
    a = np.linspace(-1, 1, 40_001)[1:-1]
    u, (mean, log_std) = np.arctanh(a), (0.4, -0.7)
    noise = jnp.asarray((u - mean) / np.exp(log_std))[:, None]
    outputs = jnp.broadcast_to(jnp.array([mean, log_std]), (len(u), 2))
    density = np.exp(np.asarray(tanh_gaussian(outputs, noise)[1], np.float64))
    np.testing.assert_allclose(np.trapezoid(density, a), 1, rtol=1e-4)


@pytest.mark.parametrize(("log_std", "bound"), [(-1e9, -20.0), (1e9, 2.0)])
def test_log_sd_is_held_between_minus_twenty_and_two(log_std, bound):
    noise = jnp.array([[0.5]])
    held = tanh_gaussian(jnp.array([[0.1, bound]]), noise)
    found = tanh_gaussian(jnp.array([[0.1, log_std]]), noise)
    jax.tree.map(np.testing.assert_array_equal, found, held)
    grad = jax.grad(lambda x: tanh_gaussian(x, noise)[1].sum())
    assert grad(jnp.array([[0.1, log_std]]))[0, 1] == 0


# The ring buffer


@functools.cache
def adding():
    return jax.jit(rl.replay.add), jax.jit(rl.replay.sample, static_argnums=2)


def transition(step, bad=None):
    """Numbers that tell task and step, 100 k + step; NaN for a task that has none."""
    number = 100.0 * np.arange(3) + step
    if bad is not None:
        number[bad] = np.nan
    wide = np.stack([number, number + 0.5], axis=1)
    return rl.Batch(wide, wide[:, :1], number, wide + 0.25, number)


def filled(steps, missing=(), capacity=4):
    add, _ = adding()
    buffer = rl.replay.init(3, capacity, 2, 1)
    for step in range(steps):
        absent = 1 if step in missing else None
        present = np.arange(3) != absent
        buffer = add(buffer, transition(step, absent), present)
    return buffer


def test_replay_each_task_from_its_own_filled_rows_and_no_others():
    """The parity test of indexing: the axis of tasks, rows that hold something."""
    _, sample = adding()
    buffer = filled(3, missing=(0, 2))
    np.testing.assert_array_equal(buffer.filled, [3, 1, 3])
    batch = sample(buffer, jax.random.key(0), 64)
    for k, steps in enumerate([{0, 1, 2}, {1}, {0, 1, 2}]):
        assert set(np.asarray(batch.reward[k])) == {100.0 * k + s for s in steps}
    # All parts of a transition stay together
    np.testing.assert_array_equal(batch.obs[..., 0], batch.reward)
    np.testing.assert_array_equal(batch.obs[..., 1], batch.reward + 0.5)
    np.testing.assert_array_equal(batch.action[..., 0], batch.reward)
    np.testing.assert_array_equal(batch.next_obs[..., 0], batch.reward + 0.25)
    np.testing.assert_array_equal(batch.terminated, batch.reward)


def test_replay_writes_over_the_oldest_row_of_the_task_alone():
    buffer = filled(6, missing=(1,))
    rewards = np.asarray(buffer.rows.reward)
    np.testing.assert_array_equal(rewards[0], [4, 5, 2, 3])
    np.testing.assert_array_equal(rewards[1], [105, 102, 103, 104])
    np.testing.assert_array_equal(buffer.at, [2, 1, 2])
    np.testing.assert_array_equal(buffer.filled, [4, 4, 4])


def test_replay_draws_of_a_task_are_its_own():
    """Not those of another, and the same however many others there are."""
    _, sample = adding()
    buffer, key = filled(4), jax.random.key(3)
    batch = sample(buffer, key, 64)
    steps = np.asarray(batch.reward) - 100 * np.arange(3)[:, None]
    assert not (steps[0] == steps[1]).all()
    assert not (steps[1] == steps[2]).all()
    counts = np.stack([np.bincount(row.astype(int), minlength=4) for row in steps])
    assert (counts > 4).all()  # 16 each in the mean
    fewer = rl.replay.sample(jax.tree.map(lambda x: x[:2], buffer), key, 64)
    np.testing.assert_array_equal(fewer.reward, batch.reward[:2])


def test_replay_without_rows_gives_zeros():
    _, sample = adding()
    batch = sample(rl.replay.init(3, 4, 2, 1), jax.random.key(0), 64)
    assert not any(np.any(x) for x in batch)


def test_replay_refuses_other_shapes():
    buffer = rl.replay.init(3, 4, 2, 1)
    with pytest.raises(ValueError, match=r"must be \(3, 2\); got \(2, 2\)"):
        rl.replay.add(buffer, jax.tree.map(lambda x: x[:2], transition(0)))
    shape = r"present= must be a boolean vector of shape \(3,\)"
    with pytest.raises(ValueError, match=shape):
        rl.replay.add(buffer, transition(0), np.array([True]))
