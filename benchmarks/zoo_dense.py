"""Dense models, in the many ways in which users write down several losses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

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
    pick,
    row,
    square,
    trunk,
    trunk_and_heads,
)


def heads(size: str) -> Model:
    """The plain case: a trunk, a head and a loss for each of several tasks."""
    return mlp(size, mlp_losses, num_tasks=4)


class _Linen(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        for _ in range(3):
            x = linen.relu(linen.Dense(self.width)(x))
        return [linen.Dense(4)(x) for _ in range(3)]


def linen_mlp(size: str) -> Model:
    width, rows = mlp_sizes(size)
    model, rng = _Linen(width), np.random.default_rng(0)
    x, y = normal(rng, rows, width), normal(rng, 3, rows, 4)

    def losses_fn(variables: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        outs = model.apply(variables, x)
        return {f"task{t}": square(out, y[t]) for t, out in enumerate(outs)}

    return Model(jax.jit(model.init)(jax.random.key(0), x), losses_fn, (x, y))


def tuple_of_losses(size: str) -> Model:
    return mlp(size, lambda *args: tuple(mlp_losses(*args).values()))


def array_of_losses(size: str) -> Model:
    """One output with a column a task, and no head."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        out = trunk(params["trunk"], x) @ params["out"]
        return jnp.mean((out - y[0]) ** 2, axis=0)

    model = mlp(size, losses_fn)
    params = {"trunk": model.params["trunk"]}
    params["out"] = kernel(np.random.default_rng(1), mlp_sizes(size)[0], 4)
    return model._replace(params=params)


def same_output(size: str) -> Model:
    """Several losses of one and the same output."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        out = trunk(params["trunk"], x)
        out, y = apply(params["heads"][0], out), y[0]
        huber = jnp.where(abs(out - y) < 1, (out - y) ** 2 / 2, abs(out - y) - 0.5)
        return {
            "l1": jnp.mean(abs(out - y)),
            "l2": square(out, y),
            "h": jnp.mean(huber),
        }

    return mlp(size, losses_fn, num_tasks=1)


def no_parameter(size: str) -> Model:
    """One task depends on no parameter, one on its head alone."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        still = square(apply(params["heads"][0], x), y[1])
        return mlp_losses(params, x, y) | {"none": jnp.mean(x**2), "own": still}

    return mlp(size, losses_fn)


def one_task(size: str) -> Model:
    return mlp(size, mlp_losses, num_tasks=1)


def auxiliary_loss(size: str) -> Model:
    """One task adds what a layer in the middle costs."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        z = trunk(params["trunk"][:2], x)
        losses = mlp_losses(params, x, y)
        return losses | {"task1": losses["task1"] + 0.3 * jnp.mean(z**4)}

    return mlp(size, losses_fn)


def hierarchy(size: str) -> Model:
    """All share a trunk, tasks 0 and 1 a layer, tasks 1, 2 and 3 another."""
    rng, (width, _) = np.random.default_rng(1), mlp_sizes(size)

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        z = trunk(params["trunk"], x)
        left, right = trunk([params["left"]], z), trunk([params["right"]], z)
        own = [left, left + right, right, right]
        pairs = zip(params["heads"], own, y, strict=True)
        return {f"{t}": square(apply(h, z), y) for t, (h, z, y) in enumerate(pairs)}

    left, right = dense(rng, width, width), dense(rng, width, width)
    return mlp(size, losses_fn, num_tasks=4, left=left, right=right)


def data_by_task(size: str) -> Model:
    """A batch of its own for each task, of its own size."""
    width, rows = mlp_sizes(size)
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, xs: Any, ys: Any) -> dict[str, jax.Array]:
        return {
            f"task{t}": square(apply(head, trunk(params["trunk"], x)), y)
            for t, (head, x, y) in enumerate(zip(params["heads"], xs, ys, strict=True))
        }

    counts = [rows // 2 + t for t in range(3)]
    batch = (
        [normal(rng, count, width) for count in counts],
        [normal(rng, count, 4) for count in counts],
    )
    return Model(trunk_and_heads(rng, width, 3), losses_fn, batch)


def data_by_task_vmapped(size: str) -> Model:
    """The same with batches of one size, vmapped over the tasks and their heads."""
    width, rows = mlp_sizes(size)
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, xs: jax.Array, ys: jax.Array) -> jax.Array:
        def loss(head: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            return square(trunk(params["trunk"], x) @ head, y)

        return jax.vmap(loss)(params["heads"], xs, ys)

    params = trunk_and_heads(rng, width, 0) | {"heads": kernel(rng, 3, width, 4)}
    batch = normal(rng, 3, rows // 2, width), normal(rng, 3, rows // 2, 4)
    return Model(params, losses_fn, batch)


def layer_twice(size: str) -> Model:
    """One layer in two places, on different numbers of rows."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        layers = params["trunk"]
        once = trunk([layers[0], layers[1], layers[1]], x)
        again = trunk(layers[1:], x[1:] ** 2)
        losses = head_losses(params["heads"], once, y)
        return losses | {"task2": square(apply(params["heads"][2], again), y[2, 1:])}

    return mlp(size, losses_fn)


def tied_decoder(size: str) -> Model:
    """A weight and its transpose."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        layers = params["trunk"]
        z = trunk(layers, x)
        back = jnp.tanh(z @ layers[1]["w"].T) @ layers[0]["w"].T
        return head_losses(params["heads"], z, y) | {"back": square(back, x)}

    return mlp(size, losses_fn)


def square_of_transpose(size: str) -> Model:
    """No product with `w` itself: `w + (w.T)**2`."""

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        layers = [{**p, "w": p["w"] + p["w"].T ** 2} for p in params["trunk"]]
        return mlp_losses({**params, "trunk": layers}, x, y)

    return mlp(size, losses_fn)


def weight_norm(size: str) -> Model:
    def normed(layer: Any) -> Any:
        w = layer["w"]
        w = w * row(layer["scale"], w) / jnp.linalg.norm(w, axis=0, keepdims=True)
        return {**layer, "w": w}

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        layers = [normed(layer) for layer in params["trunk"]]
        return mlp_losses({**params, "trunk": layers}, x, y)

    model = mlp(size, losses_fn)
    for layer in model.params["trunk"]:
        layer["scale"] = 1 + layer["b"]
    return model


def lora(size: str) -> Model:
    """Weights are frozen, outside of the parameters; small products are added."""
    width, rows = mlp_sizes(size)
    rank, rng = pick(size, 3, 16), np.random.default_rng(0)

    def losses_fn(
        params: Any, frozen: Any, x: jax.Array, y: jax.Array
    ) -> dict[str, jax.Array]:
        for layer, adapter in zip(frozen, params["trunk"], strict=True):
            x = jnp.tanh(apply(layer, x) + 0.5 * (x @ adapter["a"]) @ adapter["b"])
        return head_losses(params["heads"], x, y)

    frozen = [dense(rng, width, width) for _ in range(3)]
    params = trunk_and_heads(rng, width, 3, layers=0)
    params["trunk"] = [
        {"a": kernel(rng, width, rank), "b": kernel(rng, rank, width)} for _ in range(3)
    ]
    return Model(
        params, losses_fn, (frozen, normal(rng, rows, width), normal(rng, 3, rows, 4))
    )


def lora_merged(size: str) -> Model:
    """The small product is added to the weight, not to the output."""
    model = lora(size)

    def losses_fn(
        params: Any, frozen: Any, x: jax.Array, y: jax.Array
    ) -> dict[str, jax.Array]:
        layers = [
            {**layer, "w": layer["w"] + 0.5 * adapter["a"] @ adapter["b"]}
            for layer, adapter in zip(frozen, params["trunk"], strict=True)
        ]
        return head_losses(params["heads"], trunk(layers, x), y)

    return model._replace(losses_fn=losses_fn)


DENSE = (
    heads,
    linen_mlp,
    tuple_of_losses,
    array_of_losses,
    same_output,
    no_parameter,
    one_task,
    auxiliary_loss,
    hierarchy,
    data_by_task,
    data_by_task_vmapped,
    layer_twice,
    tied_decoder,
    square_of_transpose,
    weight_norm,
    lora,
    lora_merged,
)
