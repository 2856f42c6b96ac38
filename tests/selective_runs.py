"""Selective Task Group Updates on three toy tasks, compiled once an optimiser."""

import functools

import jax
import jax.numpy as jnp
import optax
from jax import lax
from toy_losses import OWNER, losses_fn, parameters

import mtl_optax as mtl

T = 3


def method(inner=None, num_tasks=T, **options):
    options = {"owner": OWNER, "key": 0, **options}
    return mtl.selective_groups(num_tasks, inner or optax.sgd(0.1), **options)


@functools.partial(jax.jit, static_argnums=0)
def one_update(tx, params, state, extras):
    losses, grads = mtl.lazy_task_grads(losses_fn)(params)
    extras = {"losses": losses, "losses_fn": losses_fn, **extras}
    return tx.update(grads, state, params, **extras)


def run(tx, steps, params=None, state=None, **extras):
    """Parameters and state after some steps."""
    params = parameters() if params is None else params
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = one_update(tx, params, state, extras)
        params = optax.apply_updates(params, updates)
    return params, state


def masked_gradient(params, mask):
    weights = jnp.asarray(mask, float)
    return mtl.group_grads_at(losses_fn)(params, weights)[1]


def trajectory(tx, params, steps=6):
    def body(carry, _):
        params, state = carry
        updates, state = one_update(tx, params, state, {})
        return (optax.apply_updates(params, updates), state), state.losses

    return lax.scan(body, (params, tx.init(params)), length=steps)
