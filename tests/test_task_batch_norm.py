"""A batch normalisation a task: what is apart, and what CSO finds there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mtl_optax as mtl
from mtl_optax.nn import TaskBatchNorm

X = jnp.asarray(np.random.default_rng(0).normal(1, 2, (16, 5)), jnp.float32)


def test_each_task_has_statistics_scale_and_bias_of_its_own():
    norm = TaskBatchNorm(3, 5, rngs=nnx.Rngs(0), momentum=0.5)
    alone = nnx.BatchNorm(5, rngs=nnx.Rngs(0), momentum=0.5)
    np.testing.assert_array_equal(norm(X, 1), alone(X))
    np.testing.assert_array_equal(norm.variances[1], alone.var[...])
    np.testing.assert_array_equal(norm.variances[jnp.array([0, 2])], 1)
    norm.norms[2].scale[...] = 3 * jnp.ones(5)
    np.testing.assert_array_equal(norm.scales, np.array([[1], [1], [3]]) * np.ones(5))
    np.testing.assert_allclose(norm(X, task=2), 3 * alone(X), rtol=1e-5, atol=1e-6)


def test_evaluation_takes_the_running_statistics_of_the_task():
    norm = TaskBatchNorm(2, 5, rngs=nnx.Rngs(0), momentum=0.0)
    norm(X, task=0)
    norm.eval()
    before = norm.variances
    np.testing.assert_allclose(norm(X, task=0).std(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(norm(X, task=1), X, rtol=1e-4)
    np.testing.assert_array_equal(norm.variances, before)


def test_scales_are_1_without():
    norm = TaskBatchNorm(2, 5, rngs=nnx.Rngs(0), use_scale=False)
    np.testing.assert_array_equal(norm.scales, np.ones((2, 5)))


def test_strengths_are_those_of_its_scales_and_variances():
    norm = TaskBatchNorm(2, 5, rngs=nnx.Rngs(0), epsilon=0.1)
    norm.norms[0].scale[...] = jnp.arange(5.0)
    norm(X, task=1)
    kernel = jnp.arange(30.0).reshape(3, 2, 5)
    wanted = mtl.connection_strength(kernel, norm.scales, norm.variances, eps=0.1)
    np.testing.assert_array_equal(norm.connection_strength(kernel), wanted)
    assert wanted[0, 0] == 0


def test_errors_name_the_task():
    norm = TaskBatchNorm(2, 5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"there is no task 2.*from 0"):
        norm(X, task=2)
    with pytest.raises(ValueError, match="task must be a Python int"):
        jax.jit(lambda task: norm(X, task))(jnp.int32(0))


class Net(nnx.Module):
    """A shared convolution, a normalisation a task, a head a task."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 6, (3, 3), use_bias=False, rngs=rngs)
        self.norm = TaskBatchNorm(2, 6, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(6, 1, rngs=rngs) for _ in range(2)])

    def __call__(self, x, task):
        h = nnx.relu(self.norm(self.conv(x), task)).mean(axis=(1, 2))
        return self.heads[task](h)[:, 0]


@pytest.mark.slow
def test_cso_trains_a_network_and_its_channels_get_priorities():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(32, 6, 6, 1)), jnp.float32)
    goals = {"a": x.mean((1, 2, 3)) * 5, "b": jnp.abs(x).mean((1, 2, 3)) * 5}
    graphdef, params, statistics = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)

    def losses_and_statistics(params, statistics):
        model = nnx.merge(graphdef, params, statistics, copy=True)
        losses = {
            name: jnp.mean((model(x, task) - goal) ** 2)
            for task, (name, goal) in enumerate(goals.items())
        }
        return losses, nnx.state(model, nnx.Not(nnx.Param))

    def strength_fn(params, statistics):
        model = nnx.merge(graphdef, params, statistics, copy=True)
        strengths = jax.tree.map(lambda _: None, params)
        kernel = model.conv.kernel[...]
        strengths["conv"]["kernel"] = model.norm.connection_strength(kernel)
        return strengths

    def owner(params):
        own = jax.tree.map(lambda _: None, params)
        for task in range(2):
            for part in (own["norm"]["norms"][task], own["heads"][task]):
                for name in part:
                    part[name] = task
        return own

    steps = 60
    tx = mtl.cso(
        *(2, optax.adam(0.02)),
        strength_fn=strength_fn,
        total_epochs=steps,
        key=0,
        owner=owner,
    )

    def step(carry, epoch):
        params, statistics, state = carry
        lazily = mtl.lazy_task_grads(losses_and_statistics, has_aux=True)
        (losses, seen), grads = lazily(params, statistics)
        updates, state = tx.update(
            *(grads, state, params),
            losses_fn=lambda p: losses_and_statistics(p, statistics)[0],
            statistics=statistics,
            epoch=epoch,
        )
        params = optax.apply_updates(params, updates)
        return (params, seen, state), (losses, state.phase)

    start = params, statistics, tx.init(params)
    last, (losses, phases) = jax.jit(
        lambda start: jax.lax.scan(step, start, jnp.arange(steps))
    )(start)
    assert np.all(losses[-1] < 0.5 * losses[0]), losses
    assert {1, 2} == set(phases.tolist())
    strength = strength_fn(*last[:2])["conv"]["kernel"]
    np.testing.assert_allclose(strength.sum(axis=1), 1, rtol=1e-5)
    assert len(set(np.argmax(strength, axis=0).tolist())) == 2
