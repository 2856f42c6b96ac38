"""Two toy tasks, and a scan that trains on them, for the tests of wrappers."""

import jax
import jax.numpy as jnp
import optax
import pytest

import mtl_optax as mtl

T = 2
PARAMS = {"w": jnp.array([[0.5, -1.0], [2.0, 0.3]]), "b": jnp.array([0.1, -0.2])}


def two_losses(params, x, scale=1.0):
    h = jnp.tanh(x @ params["w"]) + params["b"][None, :]
    return {"a": scale * jnp.mean((h - 1) ** 2), "b": jnp.mean((h[:, 0] + 2) ** 2)}


def batch(seed, size=8):
    return jax.random.normal(jax.random.key(seed), (size, 2))


FORMS = {"stacked": mtl.task_grads, "lazy": mtl.lazy_task_grads}
EACH_FORM = pytest.mark.parametrize("form", FORMS)


def train(tx, form, batches, scale=1.0, **extra):
    """Parameters after one jitted step a batch in a scan, and the last state."""

    def step(carry, x):
        params, state = carry
        losses, grads = FORMS[form](two_losses)(params, x, scale)
        updates, state = tx.update(grads, state, params, losses=losses, **extra)
        return (optax.apply_updates(params, updates), state), updates

    start = PARAMS, tx.init(PARAMS)
    return jax.jit(lambda: jax.lax.scan(step, start, jnp.stack(batches)))()
