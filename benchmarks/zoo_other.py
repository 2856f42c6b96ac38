"""Convolutions, recurrence, experts, and functions that JAX cannot look into."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks.zoo_parts import (
    Model,
    apply,
    cross_entropy,
    head_losses,
    ids,
    kernel,
    made,
    normal,
    pick,
    square,
    trunk,
    trunk_and_heads,
)


class Cnn(nnx.Module):
    """With a bias or BatchNorm, strides, groups, and a product at each pixel."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, rngs=rngs)
        self.first = conv(3, channels, (3, 3))
        self.second = conv(channels, 2 * channels, (3, 3), strides=2, use_bias=False)
        self.norm = nnx.BatchNorm(2 * channels, rngs=rngs)
        self.groups = conv(
            *(2 * channels, 2 * channels, (3, 3)),
            feature_group_count=2,
            padding="VALID",
        )
        self.last = conv(2 * channels, channels, (1, 1))
        self.heads = nnx.List([nnx.Linear(channels, 4, rngs=rngs) for _ in range(3)])

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        x = nnx.relu(self.norm(self.second(nnx.relu(self.first(x)))))
        x = jnp.mean(nnx.relu(self.last(nnx.relu(self.groups(x)))), axis=(1, 2))
        return [head(x) for head in self.heads]


def _cnn(size: str, train: bool) -> Model:
    channels, batch, pixels = pick(size, (4, 3, 8), (64, 32, 16))
    rng = np.random.default_rng(0)
    graphdef, params, rest = made(partial(Cnn, channels))

    def losses_fn(params: Any, rest: Any, x: jax.Array, y: jax.Array) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        model.set_attributes(use_running_average=not train, raise_if_not_found=False)
        outs = model(x)
        losses = {f"task{t}": square(out, y[t]) for t, out in enumerate(outs)}
        return (losses, nnx.state(model, nnx.BatchStat)) if train else losses

    data = normal(rng, batch, pixels, pixels, 3), normal(rng, 3, batch, 4)
    return Model(params, losses_fn, (rest, *data))


def cnn(size: str) -> Model:
    return _cnn(size, train=False)


def cnn_training(size: str) -> Model:
    """BatchNorm's new statistics are auxiliary output."""
    return _cnn(size, train=True)


# --- recurrence -----------------------------------------------------------------------


def _gru_step(p: Any, z: jax.Array, x: jax.Array) -> jax.Array:
    reset = jax.nn.sigmoid(x @ p["xr"] + z @ p["zr"])
    update = jax.nn.sigmoid(x @ p["xu"] + z @ p["zu"])
    new = jnp.tanh(x @ p["xn"] + reset * (z @ p["zn"]))
    return update * z + (1 - update) * new


def gru(size: str) -> Model:
    """The same weights in every step of a scan."""
    width, steps, rows = pick(size, (8, 3, 2), (256, 12, 16))
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, xs: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        def step(z: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = _gru_step(params["cell"], z, x)
            return z, z

        last, all_of_them = lax.scan(step, jnp.zeros((rows, width)), xs)
        losses = head_losses(params["heads"], last, y)
        return losses | {"all": jnp.mean(all_of_them**2)}

    names = ("xr", "zr", "xu", "zu", "xn", "zn")
    params = trunk_and_heads(rng, width, 3, layers=0)
    params["cell"] = {name: kernel(rng, width, width) for name in names}
    batch = normal(rng, steps, rows, width), normal(rng, 3, rows, 4)
    return Model(params, losses_fn, batch)


def linear_recurrence(size: str) -> Model:
    """`z = a z + x` at every step at once, with `lax.associative_scan`."""
    width, steps, rows = pick(size, (8, 4, 2), (1024, 32, 16))
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, xs: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        x = xs @ params["into"]
        decay = jnp.broadcast_to(jax.nn.sigmoid(params["decay"]), x.shape)

        def both(left: Any, right: Any) -> Any:
            return left[0] * right[0], left[1] * right[0] + right[1]

        z = lax.associative_scan(both, (decay, x))[1]
        return head_losses(params["heads"], jnp.mean(jnp.tanh(z), 0), y)

    params = trunk_and_heads(rng, width, 3, layers=0)
    params |= {"into": kernel(rng, width, width), "decay": normal(rng, 1, 1, width)}
    batch = normal(rng, steps, rows, width), normal(rng, 3, rows, 4)
    return Model(params, losses_fn, batch)


# --- experts --------------------------------------------------------------------------


def _experts(size: str, mix: Any) -> Model:
    """A layer, experts whose parameters are `[experts, ...]` with a gate, and heads."""
    width, rows, experts = pick(size, (8, 6, 3), (512, 128, 4))
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        z = trunk(params["trunk"], x)
        z, loads = mix(params, z)
        losses = head_losses(params["heads"], z, y)
        return losses | {"balance": jnp.sum(loads**2)}

    params = trunk_and_heads(rng, width, 3, layers=1)
    params |= {
        "gate": kernel(rng, width, experts),
        "up": kernel(rng, experts, width, width),
        "down": kernel(rng, experts, width, width),
    }
    batch = normal(rng, rows, width), normal(rng, 3, rows, 4)
    return Model(params, losses_fn, batch)


def _mixed_by_gate(params: Any, z: jax.Array) -> Any:
    chances = jax.nn.softmax(z @ params["gate"])

    def expert(up: jax.Array, down: jax.Array) -> jax.Array:
        return jnp.tanh(z @ up) @ down

    outs = jax.vmap(expert)(params["up"], params["down"])
    return jnp.einsum("re,erd->rd", chances, outs), jnp.mean(chances, 0)


def _dispatched(params: Any, z: jax.Array) -> Any:
    """Each row goes to its two best experts, of which each takes the first few."""
    rows, experts = z.shape[0], params["gate"].shape[1]
    room = max(1, 2 * rows // experts)
    chances = jax.nn.softmax(z @ params["gate"])
    weights, chosen = lax.top_k(chances, 2)
    sent = jax.nn.one_hot(chosen.reshape(-1), experts)
    place = (jnp.cumsum(sent, 0) * sent).max(1).astype(jnp.int32) - 1
    slot = jnp.where(place < room, chosen.reshape(-1) * room + place, experts * room)
    source = jnp.arange(2 * rows) // 2
    # A row without a slot is dropped: out of range, in both directions.
    inputs = (
        jnp.zeros((experts * room, z.shape[1])).at[slot].set(z[source], mode="drop")
    )
    inputs = inputs.reshape(experts, room, -1)
    outs = jnp.tanh(jnp.einsum("erd,edf->erf", inputs, params["up"]))
    outs = jnp.einsum("erf,efd->erd", outs, params["down"])
    back = outs.reshape(experts * room, -1).at[slot].get(mode="fill", fill_value=0)
    out = jnp.zeros_like(z).at[source].add(back * weights.reshape(-1, 1))
    return z + out, jnp.mean(chances, 0)


def experts(size: str) -> Model:
    return _experts(size, _mixed_by_gate)


def experts_dispatched(size: str) -> Model:
    return _experts(size, _dispatched)


def vmapped_layers(size: str) -> Model:
    """Layers side by side, each with inputs of its own."""
    width, rows, count = pick(size, (8, 4, 3), (768, 128, 4))
    rng = np.random.default_rng(0)

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        z = jax.vmap(lambda p, x: jnp.tanh(apply(p, x)))(params["layers"], x)
        z = jax.vmap(jnp.dot)(z, params["second"])
        return head_losses(params["heads"], jnp.mean(jnp.tanh(z), 0), y)

    params = trunk_and_heads(rng, width, 3, layers=0)
    layers = {"w": kernel(rng, count, width, width), "b": normal(rng, count, width)}
    params |= {"layers": layers, "second": kernel(rng, count, width, width)}
    batch = normal(rng, count, rows, width), normal(rng, 3, rows, 4)
    return Model(params, losses_fn, batch)


def message_passing(size: str) -> Model:
    """Nodes of a graph, with sums over their neighbours, and a class for some."""
    width, nodes, edges = pick(size, (8, 5, 9), (1024, 256, 1024))
    rng = np.random.default_rng(0)

    def losses_fn(
        params: Any, nodes_: jax.Array, ends: jax.Array, labels: jax.Array, y: jax.Array
    ) -> dict[str, jax.Array]:
        z = params["table"][nodes_]
        for layer in params["trunk"]:
            sent = apply(layer, z)[ends[0]]
            z = z + jnp.tanh(jax.ops.segment_sum(sent, ends[1], num_segments=nodes))
        losses = head_losses(params["heads"], z, y)
        return losses | {"class": cross_entropy(z[:, :4], labels)}

    params = trunk_and_heads(rng, width, 2, layers=2)
    params["table"] = normal(rng, 2 * nodes, width)
    batch = (ids(rng, 2 * nodes, nodes), ids(rng, nodes, 2, edges), ids(rng, 4, nodes))
    return Model(params, losses_fn, (*batch, normal(rng, 2, nodes, 4)))


OTHER = (
    cnn,
    cnn_training,
    gru,
    linear_recurrence,
    experts,
    experts_dispatched,
    vmapped_layers,
    message_passing,
)
