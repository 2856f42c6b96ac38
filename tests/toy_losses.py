"""Losses of several tasks for tests that need some, whatever they may be."""

import jax
import jax.numpy as jnp
from flax import nnx

# --- A shared trunk, and a head for each of three tasks -------------------------------

OWNER = {"trunk": None, "head": {"a": 0, "b": 1, "c": 2}}


def parameters():
    trunk = jax.random.normal(jax.random.key(0), (8, 4))
    heads = {name: 0.5 * jnp.ones(4) * (i + 1) for i, name in enumerate("abc")}
    return {"trunk": trunk, "head": heads}


def losses_fn(params):
    features = jnp.tanh(params["trunk"]).sum(axis=0) / 2
    goal = {"a": 1.0, "b": 1.2, "c": -1.0}
    return {
        name: jnp.mean((features * head - goal[name]) ** 2) + 0.1
        for name, head in params["head"].items()
    }


# --- Others ---------------------------------------------------------------------------


def linear_losses(params, stacked, offsets):
    """Losses whose gradients are the stacked ones given; `offsets` [T] at zero."""

    def loss(t):
        each = jax.tree.map(lambda g, p: jnp.sum(g[t] * p), stacked, params)
        return sum(jax.tree.leaves(each)) + offsets[t]

    return tuple(loss(t) for t in range(len(offsets)))


def wide_losses(params, x):
    """Of two wide layers, whose FLOPs can be counted, and a narrow head a task."""
    h = jnp.tanh(jnp.tanh(x @ params["trunk"]) @ params["trunk"])
    heads = {name: head for name, head in params.items() if name != "trunk"}
    return {name: jnp.mean((h @ head) ** 2) for name, head in heads.items()}


def module_losses(net, losses_of, **graph):
    """What a user of Flax NNX writes: a function of the parameters and other state.

    It returns what `losses_of(net, *args)` says of a merged copy, and the copy's state
    besides parameters after that; here too come the arguments to call it with first.
    """
    graphdef, params, rest = nnx.split(net, nnx.Param, ..., **graph)

    def losses_fn(params, rest, *args):
        copy = nnx.merge(graphdef, params, rest, copy=True)
        losses = losses_of(copy, *args)
        return losses, nnx.state(copy, nnx.Not(nnx.Param), **graph)

    return losses_fn, params, rest


def asked_points(tx, params, grads, **extras):
    """Where the method asks for gradients again, leaves `[T, *param]`."""
    seen = []

    @jax.custom_vjp
    def spy(params):
        return params

    def forward(params):
        seen.append(params)
        return params, None

    spy.defvjp(forward, lambda _, cotangent: (cotangent,))
    num_tasks = len(jax.tree.leaves(grads)[0])

    def losses_fn(params):
        total = sum(jnp.vdot(x, x) for x in jax.tree.leaves(spy(params)))
        return (total,) * num_tasks

    tx.update(grads, tx.init(params), params, losses_fn=losses_fn, **extras)
    return jax.tree.map(lambda *rows: jnp.stack(rows), *seen)
