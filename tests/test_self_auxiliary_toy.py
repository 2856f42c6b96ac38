"""Self-auxiliary towers where one task has few examples: averaged over seeds."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from mtl_optax.nn import HardSharing, SelfAuxiliary

pytestmark = pytest.mark.slow


def network(rngs, width=64):
    towers = {
        task: nnx.Sequential(
            nnx.Linear(4, width, rngs=rngs), jnp.tanh, nnx.Linear(width, 1, rngs=rngs)
        )
        for task in ("a", "b")
    }
    base = HardSharing(nnx.Linear(3, 4, rngs=rngs), towers)
    return SelfAuxiliary(base, lambda task: nnx.Linear(4, 1, rngs=rngs))


def losses_of(outputs, goals):
    return {task: jnp.mean((y - goals[task]) ** 2) for task, y in outputs.items()}


def test_a_scarce_task_is_not_worse_off_with_auxiliaries():
    """Two regressions on one feature, 20 and 200 examples, wide towers, 10 seeds."""
    graphdef, _ = nnx.split(network(nnx.Rngs(0)))

    def error(seed, gamma):
        key, _ = keys = jax.random.split(jax.random.key(seed))
        x = jax.random.normal(keys[1], (420, 3))
        feature = x @ jnp.array([0.6, -0.8, 0.0])
        goals = {"a": jnp.sin(2 * feature)[:, None], "b": jnp.abs(feature)[:, None]}
        few = {"a": slice(0, 20), "b": slice(20, 220)}
        params = jax.tree.map(
            jnp.asarray, nnx.to_pure_dict(nnx.split(network(nnx.Rngs(params=key)))[1])
        )

        def loss(params):
            net = nnx.merge(graphdef, params)
            net.gamma = gamma
            cut = lambda ys: losses_of(  # noqa: E731
                {task: y[few[task]] for task, y in ys.items()},
                {task: y[few[task]] for task, y in goals.items()},
            )
            outputs, terms = net.with_auxiliary(x[:220], cut)
            return sum(cut(outputs).values()) + sum(terms.values())

        tx = optax.adam(0.01)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=500)
        y = nnx.merge(graphdef, params)(x[220:])["a"]
        return jnp.mean((y - goals["a"][220:]) ** 2)

    both = jax.vmap(jax.vmap(error, (0, None)), (None, 0))
    without, with_auxiliary = jax.jit(both)(jnp.arange(10), jnp.array([0.0, 1.0]))
    assert without.mean() < 0.25  # half the variance: it learns
    assert with_auxiliary.mean() < 1.1 * without.mean()
