"""Dense models under jit, checkpoint, branches, loops and derivatives of users."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.zoo_parts import (
    Model,
    apply,
    dense,
    head_losses,
    kernel,
    mlp,
    mlp_losses,
    mlp_sizes,
    normal,
    square,
    trunk,
    trunk_and_heads,
)


def bf16_compute(size: str) -> Model:
    """Parameters in float32, all products in bfloat16, losses in float32."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        outs = trunk(low["trunk"], x.astype(jnp.bfloat16))
        outs = [apply(head, outs).astype(jnp.float32) for head in low["heads"]]
        return {f"task{t}": square(out, y[t]) for t, out in enumerate(outs)}

    return mlp(size, losses_fn)


def inner_jit(size: str) -> Model:
    """The user has jitted the trunk, its layers, and each loss."""

    @jax.jit
    def layer_fn(layer: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(apply(layer, x))

    @jax.jit
    def trunk_fn(layers: Any, x: jax.Array) -> jax.Array:
        for layer in layers:
            x = layer_fn(layer, x)
        return x

    @partial(jax.jit, static_argnames="power")
    def loss(head: Any, z: jax.Array, y: jax.Array, power: int) -> jax.Array:
        return jnp.mean(abs(apply(head, z) - y) ** power)

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        z = trunk_fn(params["trunk"], x)
        pairs = zip(params["heads"], y, strict=True)
        return {f"{t}": loss(head, z, y, 2 + t) for t, (head, y) in enumerate(pairs)}

    return mlp(size, losses_fn)


def all_jitted(size: str) -> Model:
    return mlp(size, jax.jit(mlp_losses))


def checkpointed(size: str) -> Model:
    """`jax.checkpoint` around the whole function."""
    return mlp(size, jax.checkpoint(mlp_losses))


@jax.custom_vjp
def _rounded(x: jax.Array) -> jax.Array:
    return jnp.round(8 * x) / 8


_rounded.defvjp(lambda x: (_rounded(x), None), lambda _, cotangent: (cotangent,))


def _product_with(kernel_gradient: Any) -> Any:
    """`x @ w`, whose second gradient is that of `(x, w, cotangent)`."""

    @jax.custom_vjp
    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return x @ w

    def backward(kept: Any, cotangent: jax.Array) -> Any:
        x, w = kept
        return cotangent @ w.T, kernel_gradient(x, w, cotangent)

    product.defvjp(lambda x, w: (x @ w, (x, w)), backward)
    return product


def _custom(size: str, kernel_gradient: Any) -> Model:
    product = _product_with(kernel_gradient)

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        for layer in params["trunk"]:
            x = _rounded(jnp.tanh(product(x, layer["w"]) + layer["b"][None, :]))
        return head_losses(params["heads"], x, y)

    return mlp(size, losses_fn)


def custom_gradients(size: str) -> Model:
    """A rounding that passes gradients on, and a product that adds to its own."""
    return _custom(size, lambda x, w, c: 0.5 * x.T @ c + 0.01 * jnp.sum(c) * w)


def clipped_gradients(size: str) -> Model:
    """The backward pass is no linear function of the cotangent."""
    return _custom(size, lambda x, w, c: x.T @ jnp.clip(c, -0.02, 0.01))


def branches(size: str) -> Model:
    """`lax.cond` on what the data are, with weights in one branch, and a switch."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        first, second, third = params["trunk"]
        z = lax.cond(jnp.sum(x) > 1e6, lambda z: z, lambda z: trunk([first], z), x)
        z = lax.switch(jnp.argmax(x[0, :2]), [lambda z: z**2, jnp.sin], z)
        z = lax.cond(
            *(jnp.sum(x) < 1e6, lambda p, z: trunk([p], z), lambda p, z: z),
            *(second, z),
        )
        return head_losses(params["heads"], trunk([third], z), y)

    return mlp(size, losses_fn)


def loops(size: str) -> Model:
    """`fori_loop` around a layer, and a `while_loop` that finds a scale."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        first, second, _ = params["trunk"]
        z = lax.fori_loop(0, 3, lambda _, z: trunk([first], z), x)
        size = lax.stop_gradient(jnp.max(abs(z)))
        scale = lax.while_loop(lambda s: s < size, lambda s: 2 * s, jnp.float32(0.01))
        z = lax.map(lambda row: trunk([second], row[None, :])[0], z / scale)
        return head_losses(params["heads"], z, y)

    return mlp(size, losses_fn)


def derivatives(size: str) -> Model:
    """A differential equation: losses of what the network's derivatives are."""
    width, rows = mlp_sizes(size)
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, x: jax.Array) -> dict[str, jax.Array]:
        def u(x: jax.Array) -> jax.Array:
            z = jnp.tanh(apply(params["first"], x[None, :]))
            return (trunk(params["trunk"], z) @ params["out"])[0, 0]

        def curvature(x: jax.Array) -> jax.Array:
            return jax.jvp(jax.grad(u), (x,), (jnp.ones_like(x),))[1][0]

        values, slopes = jax.vmap(jax.value_and_grad(u))(x)
        return {
            "inside": jnp.mean((jax.vmap(curvature)(x) + values) ** 2),
            "slope": jnp.mean((slopes - 1) ** 2),
            "start": jnp.mean((values - x[:, 0]) ** 2),
        }

    params = trunk_and_heads(rng, width, 0, layers=1)
    params |= {"first": dense(rng, 2, width), "out": kernel(rng, width, 1)}
    return Model(params, losses_fn, (normal(rng, rows, 2),))


def inner_step(size: str) -> Model:
    """Losses after one step of gradient descent inside, as in meta-learning."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        slope = jax.grad(lambda p: mlp_losses(p, x, y)["task0"])(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
        return mlp_losses(params, x[::-1], y)

    return mlp(size, losses_fn)


PROGRAMS = (
    bf16_compute,
    inner_jit,
    all_jitted,
    checkpointed,
    custom_gradients,
    clipped_gradients,
    branches,
    loops,
    derivatives,
    inner_step,
)
