"""Scans over layers, rules by hand inside, and what takes one cotangent at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from hostile_losses import ROWS, WIDTH, three
from jax import lax


def dense(z, w):
    return jnp.tanh(z @ w)


def over_layers(layer, **options):
    """Losses behind a scan over `params["stack"]`, of which `layer(z, w)` is a step."""

    def losses(params, data):
        step = lambda z, w: (layer(z, w), None)  # noqa: E731
        return three(params, lax.scan(step, data["x"], params["stack"], **options)[0])

    return losses


def rule(kernel_gradient):
    """A product with a backward pass by hand."""

    @jax.custom_vjp
    def product(z, w):
        return z @ w

    def back(kept, cotangent):
        z, w = kept
        return cotangent @ w.T, kernel_gradient(z, w, cotangent)

    product.defvjp(lambda z, w: (z @ w, (z, w)), back)
    return product


def in_branches(z, w):
    return lax.cond(jnp.sum(z) > 0, dense, lambda z, w: z @ w.T, z, w)


def lookup_beside(params, data):
    """A table and a dense layer, the same in each step."""

    def step(z, i):
        z = jnp.tanh(z + params["table"][i] @ params["w"])
        return z, z

    z, each = lax.scan(step, jnp.zeros(WIDTH), data["ids"])
    return three(params, each + z[None])


def shared_and_own(params, data):
    """Weights of the step beside one of all steps, in reverse."""

    def step(z, w):
        return jnp.tanh(z @ w + z @ params["w"]), z @ w

    z, each = lax.scan(step, data["x"], params["stack"], reverse=True)
    return three(params, z + each[1])


def same_inputs(params, data):
    """One factor does not depend on the step."""
    step = lambda z, w: (z + jnp.tanh(data["x"] @ w), None)  # noqa: E731
    return three(params, lax.scan(step, data["x"], params["stack"])[0])


def inputs_by_step(params, data):
    """One factor is what the scan reads."""
    xs = jnp.stack([data["x"], data["x"] ** 2])
    step = lambda z, wx: (z + jnp.tanh(wx[1] @ wx[0]), None)  # noqa: E731
    return three(params, lax.scan(step, data["x"], (params["stack"], xs))[0])


def two_stacks(params, data):
    """One stack in both orders, as it is and transposed, and sums for one task."""

    def step(z, pair):
        return jnp.tanh(z @ pair[0] @ pair[1].T), jnp.sum(z @ pair[1])

    pairs = params["stack"], params["stack"][::-1]
    z, sums = lax.scan(step, data["x"], pairs)
    losses = three(params, z)
    return {**losses, "b": losses["b"] + sums[0]}


def by_index(params, data):
    stack = params["stack"]
    run = lambda i, z: dense(z, stack[i])  # noqa: E731
    return three(params, lax.fori_loop(0, 2, run, data["x"]))


def row_by_row(params, data):
    """A scan under `vmap`."""
    step = lambda z, w: (dense(z, w), None)  # noqa: E731
    run = lambda x: lax.scan(step, x, params["stack"])[0]  # noqa: E731
    return three(params, jax.vmap(run)(data["x"]))


def none(params, data):
    """No step at all."""
    step = lambda z, w: (dense(z, w), None)  # noqa: E731
    z, _ = lax.scan(step, data["x"], params["stack"][:0])
    return three(params, z @ params["w"])


def one(params, data):
    step = lambda z, w: (dense(z, w), None)  # noqa: E731
    return three(params, lax.scan(step, data["x"], params["w"][None])[0])


def losses_in_a_scan(params, data):
    """All tasks' losses leave one scan."""
    step = lambda z, x: (z, three(params, x @ params["w"]))  # noqa: E731
    _, losses = lax.scan(step, 0, data["x"][None])
    return jax.tree.map(lambda loss: loss[0], losses)


def losses_in_a_branch(params, data):
    z = data["x"] @ params["w"]
    other = lambda params, z: three(params, 2 * z)  # noqa: E731
    return lax.cond(data["ids"][0] > 0, three, other, params, z)


def fixed_point(params, data):
    """Implicit differentiation, with a loop in the backward pass."""

    def step(w, x, z):
        return jnp.tanh(0.3 * z @ w + x)

    def loop(fun, start):
        turn = lambda state: (fun(state[0]), state[1] + 1)  # noqa: E731
        return lax.while_loop(lambda state: state[1] < 20, turn, (start, 0))[0]

    @jax.custom_vjp
    def solve(w, x):
        return loop(lambda z: step(w, x, z), x)

    def forward(w, x):
        z = solve(w, x)
        return z, (w, x, z)

    def back(kept, cotangent):
        w, x, z = kept
        _, through = jax.vjp(lambda z: step(w, x, z), z)
        summed = loop(lambda u: cotangent + through(u)[0], cotangent)
        return jax.vjp(lambda w, x: step(w, x, z), w, x)[1](summed)

    solve.defvjp(forward, back)
    return three(params, solve(params["w"], data["x"]))


def over_devices(params, data):
    axis = (jax.sharding.AxisType.Auto,)
    by_rows, whole = jax.P("rows"), jax.P()
    mean = lambda x, w: lax.pmean(jnp.tanh(x @ w), "rows")  # noqa: E731
    mapped = jax.shard_map(
        mean,
        mesh=jax.make_mesh((2,), ("rows",), axis_types=axis),
        in_specs=(by_rows, whole),
        out_specs=whole,
    )
    return three(params, mapped(data["x"], params["w"]))


def attention(params, data):
    q, v = ((data["x"] @ params[name]).reshape(1, ROWS, 2, WIDTH // 2) for name in "wv")
    z = jax.nn.dot_product_attention(q, q, v)
    return three(params, z.reshape(ROWS, WIDTH))


SCANS = {
    "layers": over_layers(dense),
    "layers unrolled": over_layers(dense, unroll=2),
    "layers backwards": over_layers(dense, reverse=True),
    "layers again": over_layers(jax.checkpoint(dense)),
    "layers in branches": over_layers(in_branches),
    "a weight twice": over_layers(lambda z, w: dense(dense(z, w), w)),
    "a weight both ways": over_layers(lambda z, w: dense(dense(z, w), w.T)),
    "a weight squared": over_layers(lambda z, w: dense(z, w**2)),
    "rounded": over_layers(lambda z, w: dense(z, w.astype(jnp.bfloat16) * 1.0)),
    "activations with rules": over_layers(
        jax.checkpoint(
            lambda z, w: jax.nn.relu(jax.nn.silu(z @ w) + jax.nn.softplus(z))
        )
    ),
    "half by hand": over_layers(
        lambda z, w: jnp.tanh(rule(lambda z, w, c: 0.5 * z.T @ c)(z, w))
    ),
    "more by hand": over_layers(
        lambda z, w: jnp.tanh(rule(lambda z, w, c: z.T @ c + w * c.sum())(z, w))
    ),
    "one by hand": over_layers(
        lambda z, w: jnp.tanh(rule(lambda z, w, c: z.T @ c + 1)(z, w))
    ),
    "squares by hand": over_layers(
        lambda z, w: jnp.tanh(rule(lambda z, w, c: c.T @ c)(z, w))
    ),
    "by hand again": over_layers(
        jax.checkpoint(lambda z, w: jnp.tanh(rule(lambda z, w, c: 2 * z.T @ c)(z, w)))
    ),
} | {
    fn.__name__: fn
    for fn in (
        lookup_beside,
        shared_and_own,
        same_inputs,
        inputs_by_step,
        two_stacks,
        by_index,
        row_by_row,
        none,
        one,
        losses_in_a_scan,
        losses_in_a_branch,
        fixed_point,
        over_devices,
        attention,
    )
}


def groups_of_rows(params, data):
    """Experts by groups of rows."""
    sizes = jnp.array([3, 1], jnp.int32)
    return three(params, lax.ragged_dot(data["x"], params["stack"], sizes))


def on_the_host(params, data):
    def outer(z, w, cotangent):
        product = lambda z, c: np.asarray(z).T @ np.asarray(c)  # noqa: E731
        return jax.pure_callback(product, jax.typeof(w), z, cotangent)

    return three(params, rule(outer)(data["x"], params["w"]))


def linear_by_hand(params, data):
    back = lambda x, c: x.T @ c  # noqa: E731
    call = jax.custom_derivatives.linear_call
    return three(params, call(jnp.matmul, back, data["x"], params["w"]))


# `jax.vmap` raises in their backward passes.
ONE_BY_ONE = {fn.__name__: fn for fn in (groups_of_rows, on_the_host, linear_by_hand)}
