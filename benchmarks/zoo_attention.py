"""Transformers: embeddings, attention, LayerNorm; as modules, and as scanned stacks."""

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
    dense,
    ids,
    kernel,
    made,
    normal,
    pick,
    row,
    square,
)


class Block(nnx.Module):
    """Attention and two dense layers, each after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, *, rate: float = 0.0, rngs: nnx.Rngs):
        self.before = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            *(2, width), decode=False, dropout_rate=rate, deterministic=False, rngs=rngs
        )
        self.between = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 2 * width, rngs=rngs)
        self.down = nnx.Linear(2 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.before(x))
        return x + self.dropout(self.down(nnx.gelu(self.up(self.between(x)))))


class Transformer(nnx.Module):
    """Next token, a class for each token, and a number for the text."""

    def __init__(
        self,
        *sizes: int,
        tied: bool,
        remat: bool = False,
        rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        words, length, width, blocks = sizes
        self.embed = nnx.Embed(words, width, rngs=rngs)
        self.places = nnx.Param(jnp.linspace(-1, 1, length * width))
        self.blocks = nnx.List(
            [Block(width, rate=rate, rngs=rngs) for _ in range(blocks)]
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.out = None if tied else nnx.Linear(width, words, rngs=rngs)
        self.tag = nnx.Linear(width, 3, rngs=rngs)
        self.pooled = nnx.Linear(width, 1, rngs=rngs)
        self.remat = remat

    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, ...]:
        x = self.embed(tokens)
        x = x + self.places[...].reshape(1, tokens.shape[1], -1)
        call = nnx.remat(Block.__call__) if self.remat else Block.__call__
        for block in self.blocks:
            x = call(block, x)
        x = self.norm(x)
        words = self.embed.attend(x) if self.out is None else self.out(x)
        return words, self.tag(x), self.pooled(jnp.mean(x, 1))


def _transformer(size: str, **options: Any) -> Model:
    sizes = words, length, *_ = pick(size, (11, 3, 16, 1), (10_000, 16, 256, 3))
    rng, batch = np.random.default_rng(0), pick(size, 2, 4)
    graphdef, params, rest = made(partial(Transformer, *sizes, **options))

    def losses_fn(params: Any, rest: Any, *batch: jax.Array) -> dict[str, jax.Array]:
        tokens, following, tags, value = batch
        model = nnx.merge(graphdef, params, rest, copy=True)
        words, classes, number = model(tokens)
        return {
            "next": cross_entropy(words, following),
            "tag": cross_entropy(classes, tags),
            "value": square(number, value),
        }

    data = (
        ids(rng, words, batch, length),
        ids(rng, words, batch, length),
        ids(rng, 3, batch, length),
        normal(rng, batch, 1),
    )
    return Model(params, losses_fn, (rest, *data))


def transformer(size: str) -> Model:
    return _transformer(size, tied=False)


def transformer_tied(size: str) -> Model:
    """The table of words is the output's weight too."""
    return _transformer(size, tied=True)


def transformer_remat(size: str) -> Model:
    return _transformer(size, tied=False, remat=True)


def transformer_tied_remat(size: str) -> Model:
    return _transformer(size, tied=True, remat=True)


def transformer_dropout(size: str) -> Model:
    """With the same key in every step."""
    return _transformer(size, tied=False, rate=0.3)


# --- stacks ---------------------------------------------------------------------------


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    x = x - jnp.mean(x, -1, keepdims=True)
    return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * row(scale, x)


def _block(x: jax.Array, p: Any) -> jax.Array:
    """`[rows, length, width]`; heads lie in axes of the weights."""
    z = _norm(x, p["before"])
    q, k, v = (jnp.einsum("bld,hde->bhle", z, p[name]) for name in "qkv")
    scores = jnp.einsum("bhle,bhme->bhlm", q, k) * q.shape[-1] ** -0.5
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    chances = jax.nn.softmax(jnp.where(row(seen, scores), scores, -1e9))
    z = jnp.einsum("bhlm,bhme->bhle", chances, v)
    x = x + jnp.einsum("bhle,hed->bld", z, p["mix"])
    z = jax.nn.gelu(apply(p["up"], _norm(x, p["between"])))
    return x + apply(p["down"], z)


def _block_params(rng: np.random.Generator, width: int) -> Any:
    heads, each = 2, width // 2
    return {
        **{name: kernel(rng, heads, width, each) for name in "qkv"},
        "mix": kernel(rng, heads, each, width),
        "before": 1 + normal(rng, width, scale=0.1),
        "between": 1 + normal(rng, width, scale=0.1),
        "up": dense(rng, width, 2 * width),
        "down": dense(rng, 2 * width, width),
    }


def _stack(size: str, run: Any) -> Model:
    """Blocks whose parameters lie in one tree of arrays `[layers, ...]`."""
    width, layers, batch, length = pick(size, (12, 2, 2, 3), (256, 6, 4, 16))
    rng = np.random.default_rng(0)
    each = [_block_params(rng, width) for _ in range(layers)]
    params = {
        "blocks": jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *each),
        "heads": [dense(rng, width, 4) for _ in range(3)],
    }

    def losses_fn(params: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        x = run(params["blocks"], x)
        pairs = zip(params["heads"], y, strict=True)
        return {f"{t}": square(apply(head, x), y) for t, (head, y) in enumerate(pairs)}

    data = normal(rng, batch, length, width), normal(rng, 3, batch, length, 4)
    return Model(params, losses_fn, data)


def _scan(body: Any, blocks: Any, x: jax.Array) -> jax.Array:
    return lax.scan(lambda x, p: (body(x, p), None), x, blocks)[0]


def scanned_blocks(size: str) -> Model:
    """How large models are written."""
    return _stack(size, partial(_scan, _block))


def scanned_blocks_remat(size: str) -> Model:
    return _stack(size, partial(_scan, jax.checkpoint(_block)))


def scanned_blocks_dots_kept(size: str) -> Model:
    """With a policy that keeps the products."""
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    body = jax.checkpoint(_block, policy=policy, prevent_cse=False)
    return _stack(size, partial(_scan, body))


def scanned_in_scan(size: str) -> Model:
    """Pairs of blocks: a checkpointed scan in a scan, as memory asks for."""

    def run(blocks: Any, x: jax.Array) -> jax.Array:
        pairs = jax.tree.map(lambda p: p.reshape(-1, 2, *p.shape[1:]), blocks)
        inner = jax.checkpoint(lambda x, pair: _scan(_block, pair, x))
        return _scan(inner, pairs, x)

    return _stack(size, run)


def scanned_dropout_remat(size: str) -> Model:
    """Masks are drawn again in the backward pass, from a key for each block."""

    @jax.checkpoint
    def body(x: jax.Array, p: Any) -> jax.Array:
        kept = jax.random.bernoulli(p["key"], 0.7, x.shape)
        return jnp.where(kept, _block(x, p) / 0.7, 0)

    def run(blocks: Any, x: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.key(0), blocks["mix"].shape[0])
        return _scan(body, {**blocks, "key": keys}, x)

    return _stack(size, run)


def vmapped_blocks(size: str) -> Model:
    """The blocks of a stack side by side, an ensemble."""
    return _stack(
        size, lambda blocks, x: jnp.mean(jax.vmap(_block, (None, 0))(x, blocks), 0)
    )


class Stack(nnx.Module):
    """Layers made by `nnx.vmap` and run by `nnx.scan`."""

    def __init__(self, width: int, layers: int, *, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make(rngs: nnx.Rngs) -> Block:
            return Block(width, rngs=rngs)

        self.blocks = make(rngs)
        self.heads = nnx.List([nnx.Linear(width, 4, rngs=rngs) for _ in range(3)])

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x: jax.Array, block: Block) -> jax.Array:
            return block(x)

        x = run(x, self.blocks)
        return [head(x) for head in self.heads]


def nnx_scanned(size: str) -> Model:
    width, layers, batch, length = pick(size, (12, 2, 2, 3), (256, 6, 4, 16))
    rng = np.random.default_rng(0)
    graphdef, params, rest = made(partial(Stack, width, layers))

    def losses_fn(params: Any, rest: Any, x: jax.Array, y: jax.Array) -> Any:
        outs = nnx.merge(graphdef, params, rest, copy=True)(x)
        return {f"{t}": square(out, y[t]) for t, out in enumerate(outs)}

    data = normal(rng, batch, length, width), normal(rng, 3, batch, length, 4)
    return Model(params, losses_fn, (rest, *data))


ATTENTION = (
    transformer,
    transformer_tied,
    transformer_remat,
    transformer_tied_remat,
    transformer_dropout,
    scanned_blocks,
    scanned_blocks_remat,
    scanned_blocks_dots_kept,
    scanned_in_scan,
    scanned_dropout_remat,
    vmapped_blocks,
    nnx_scanned,
)
