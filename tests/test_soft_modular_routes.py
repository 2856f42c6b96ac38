"""Soft modularisation computes what plain loops over its modules compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import SoftModularNet

VARIANTS = pytest.mark.parametrize("variant", ["code", "paper"])
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def small(num_tasks=2, variant="code", **sizes):
    sizes = {"num_layers": 3, "num_modules": 3, "module_dim": 4} | sizes
    embed = {"embed_dim": 7, "gate_dim": 6, "rngs": nnx.Rngs(0)}
    return SoftModularNet(5, num_tasks, 2, variant=variant, **sizes, **embed)


def relu(x):
    return np.maximum(x, 0)


def linear(layer, x, *index):
    kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
    return x @ kernel[index] + bias[index][None]


def test_forced_routes_are_paths_through_the_modules():
    net = small()
    path = (2, 0, 1)  # the module before each of a layer's, and at the end
    for layer, source in zip(net.router.logits, path, strict=True):
        layer.kernel[...] *= 0
        rows = layer.bias.shape[0] // 3
        layer.bias[...] = jnp.tile(1e3 * jax.nn.one_hot(source, 3), rows)
    first, second = net.encoder
    m = linear(net.layers[0], relu(linear(second, relu(linear(first, X)))), path[0])
    for layer, source in zip(list(net.layers)[1:], path[1:], strict=True):
        m = linear(layer, relu(m), source)
    wanted = linear(net.head, relu(m))
    for y in net(X).values():
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-6)


@VARIANTS
def test_a_loop_over_modules_computes_the_same(variant):
    net = small(variant=variant)
    for layer in net.router.logits:
        layer.kernel[...] *= 3000
    first, second = net.encoder
    f = linear(second, relu(linear(first, X)))
    e = f * np.asarray(net.own["1"][...] + net.task_bias[...])[None]
    for layer in net.router.gate:
        e = linear(layer, relu(e))
    routing, logits, gated = [], None, e
    for number, layer in enumerate(net.router.logits):
        if number:
            flat = [p.reshape(6, -1) for p in routing]
            seen = np.concatenate(flat, axis=1) if variant == "code" else logits
            gated = linear(net.router.seen[number - 1], seen) * e
        logits = linear(layer, relu(gated))
        rows = np.exp(logits).reshape(6, -1, 3)
        routing.append(rows / rows.sum(axis=2, keepdims=True))
    for p, wanted in zip(net.routing(X)["1"], routing, strict=True):
        assert wanted.std() > 0.02
        np.testing.assert_allclose(p, wanted, rtol=1e-4, atol=1e-5)
    inside, between = (relu, lambda u: u) if variant == "paper" else (lambda m: m, relu)
    m = [linear(net.layers[0], relu(f), j) for j in range(3)]
    for p, layer in zip(routing, list(net.layers)[1:], strict=False):
        mixed = [
            sum(p[:, i, j, None] * inside(m[j]) for j in range(3)) for i in range(3)
        ]
        m = [linear(layer, between(u), i) for i, u in enumerate(mixed)]
    if variant == "code":
        last = sum(routing[-1][:, 0, j, None] * m[j] for j in range(3))
        wanted = linear(net.head, relu(last))
    else:
        wanted = sum(m)
    np.testing.assert_allclose(net(X)["1"], wanted, rtol=1e-4, atol=1e-6)
