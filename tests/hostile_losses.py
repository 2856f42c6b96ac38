"""Losses written to mislead whoever reads their backward pass.

Each is `losses(params, data) -> dict of three`, on the parameters and data below.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

WORDS, WIDTH, ROWS = 7, 6, 4
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape, np.float32))


PARAMS = {
    "table": normal(WORDS, WIDTH),
    "w": 0.5 * normal(WIDTH, WIDTH),
    "v": 0.5 * normal(WIDTH, WIDTH),
    "heads": normal(3, WIDTH),
    "stack": 0.5 * normal(2, WIDTH, WIDTH),
}
DATA = {
    "x": normal(ROWS, WIDTH),
    "ids": jnp.array([2, 5, 2, 0]),  # one twice
    "beyond": jnp.array([2, 9, -1, -8]),  # after the end, the last, before the start
    "columns": jnp.array([1, 1, 4, 5]),
}


def three(params, z):
    """Losses of a representation `[rows, width]`, of all three tasks."""
    z = jnp.tanh(z @ params["v"])
    losses = jnp.mean((z @ params["heads"].T - 1) ** jnp.arange(2, 5)[None, :], 0)
    return {"a": losses[0], "b": losses[1], "c": losses[2] - 0.3 * jnp.mean(z)}


# --- look-ups -------------------------------------------------------------------------


def of_table(look_up):
    return lambda params, data: three(params, look_up(params["table"], data))


def one_row(table, i):
    return lax.dynamic_slice_in_dim(table, i, 1)[0]


def chosen(table, data):
    """A column of each row, not a row."""
    picked = jnp.take_along_axis(table[:ROWS], data["columns"][:, None], axis=1)
    return picked * data["x"]


LOOK_UPS = {
    "index": lambda table, data: table[data["ids"]],
    "index beyond": lambda table, data: table[data["beyond"]],
    "index by two axes of ids": lambda table, data: jnp.sum(
        table[jnp.stack([data["ids"], data["columns"]])], 0
    ),
    "take": lambda table, data: jnp.take(table, data["ids"], axis=0),
    "take clip": lambda table, data: jnp.take(
        table, data["beyond"], axis=0, mode="clip"
    ),
    "take wrap": lambda table, data: jnp.take(
        table, data["beyond"], axis=0, mode="wrap"
    ),
    "take fill": lambda table, data: jnp.take(
        table, data["beyond"], axis=0, mode="fill", fill_value=0.5
    ),
    "get clip": lambda table, data: table.at[data["beyond"]].get(mode="clip"),
    "get fill": lambda table, data: table.at[data["beyond"]].get(
        mode="fill", fill_value=0
    ),
    "get drop, positive ids only": lambda table, data: table.at[data["beyond"]].get(
        mode="fill", fill_value=0, wrap_negative_indices=False
    ),
    "get promised": lambda table, data: table.at[data["ids"]].get(
        mode="promise_in_bounds"
    ),
    "get sorted": lambda table, data: table.at[jnp.sort(data["ids"])].get(
        indices_are_sorted=True
    ),
    "get unique": lambda table, data: table.at[jnp.array([3, 0, 6, 1])].get(
        unique_indices=True
    ),
    "columns": lambda table, data: (
        table[:ROWS, data["columns"] % WIDTH][:, :ROWS] @ data["x"]
    ),
    "of the transpose": lambda table, data: table.T[:, data["ids"]].T,
    "numbers by two ids": lambda table, data: (
        table[data["ids"], data["columns"]][:, None] * data["x"]
    ),
    "rows and columns": lambda table, data: (
        table[data["ids"][:, None], data["columns"][None, :]] @ data["x"]
    ),
    "along an axis": chosen,
    "slices": lambda table, data: jax.vmap(one_row, (None, 0))(table, data["beyond"]),
    "part of a row": lambda table, data: jnp.pad(
        table[data["ids"], :3], ((0, 0), (0, 3))
    ),
    "static ids": lambda table, data: table[jnp.array([0, 0, 6, 3])],
    "slice": lambda table, data: table[1 : 1 + ROWS],
    "stride": lambda table, data: table[::2],
    "backwards": lambda table, data: table[::-1],
    "mask": lambda table, data: jnp.where(table > 0, table, 0)[data["ids"]],
    "one hot": lambda table, data: jax.nn.one_hot(data["ids"], WORDS) @ table,
    "more look-ups than words": lambda table, data: jnp.sum(
        table[jnp.arange(24).reshape(6, 4) % WORDS], 0
    ),
    "look-up of a look-up": lambda table, data: table[data["columns"]][data["ids"] % 4],
    "twice": lambda table, data: table[data["ids"]] * table[data["columns"]],
    "twice and dense": lambda table, data: (
        (table[data["ids"]] @ table.T) @ table * 0.1 + table[data["columns"]]
    ),
    "of what was computed": lambda table, data: jnp.sin(table)[data["ids"]],
    "reshaped": lambda table, data: table.reshape(-1, 2, 3)[data["ids"]].reshape(-1, 6),
    "merged axes": lambda table, data: (
        table.reshape(WORDS * 2, 3)[data["ids"]] @ data["x"][:3]
    ),
    "segments": lambda table, data: jax.ops.segment_sum(
        table, jnp.array([0, 1, 1, 3, 9, -1, 0]), num_segments=ROWS
    ),
    "scattered": lambda table, data: (
        data["x"].at[data["ids"] % ROWS].add(table[data["ids"]])
    ),
    "set": lambda table, data: data["x"].at[jnp.array([2, 0])].set(table[:2]),
    "updated slice": lambda table, data: lax.dynamic_update_slice(
        data["x"], table[:2], (data["ids"][3] + 1, 0)
    ),
    "sorted": lambda table, data: jnp.sort(table, axis=0)[:ROWS],
    "best": lambda table, data: lax.top_k(table.T, ROWS)[0].T,
    "half precision": lambda table, data: table.astype(jnp.bfloat16)[
        data["ids"]
    ].astype(jnp.float32),
    "empty": lambda table, data: table[data["ids"][:0]].sum(0)[None, :] + data["x"],
}


# --- backward passes by hand ----------------------------------------------------------


def by_hand(forward, backward):
    """`backward(w, other, cotangent)` makes the gradient of `w`, none of the other."""

    @jax.custom_vjp
    def call(w, other):
        return forward(w, other)

    def back(kept, cotangent):
        w, other = kept
        nothing = jax.tree.map(
            lambda o: (
                jnp.zeros_like(o)
                if jnp.issubdtype(o.dtype, jnp.floating)
                else np.zeros(o.shape, jax.dtypes.float0)
            ),
            other,
        )
        return backward(w, other, cotangent), nothing

    call.defvjp(lambda w, other: (forward(w, other), (w, other)), back)
    return call


def table_by_hand(backward):
    call = by_hand(lambda table, ids: table[ids], backward)
    return lambda params, data: three(params, call(params["table"], data["ids"]))


def product_by_hand(backward):
    call = by_hand(lambda w, x: x @ w, backward)
    return lambda params, data: three(params, call(params["w"], data["x"]))


def zeros(w):
    return jnp.zeros_like(w)


BY_HAND = {
    # A scatter-add into what is not zero
    "into ones": table_by_hand(lambda w, i, c: jnp.ones_like(w).at[i].add(c)),
    "into the table": table_by_hand(lambda w, i, c: (0.1 * w).at[i].add(c)),
    "into a number": table_by_hand(lambda w, i, c: jnp.full_like(w, 0.01).at[i].add(c)),
    "into a cotangent": table_by_hand(
        lambda w, i, c: jnp.broadcast_to(c.sum(0)[None, :], w.shape).at[i].add(c)
    ),
    "into a scatter": table_by_hand(
        lambda w, i, c: zeros(w).at[i].add(c).at[i[::-1]].add(2 * c)
    ),
    "into zeros times": table_by_hand(lambda w, i, c: (0 * w).at[i].add(c)),
    "scaled after": table_by_hand(lambda w, i, c: 3 * zeros(w).at[i].add(c)),
    "weighed after": table_by_hand(lambda w, i, c: w * zeros(w).at[i].add(c)),
    "plus ones": table_by_hand(lambda w, i, c: zeros(w).at[i].add(c) + 1),
    # Other scatters
    "two ids": table_by_hand(lambda w, i, c: zeros(w).at[i, i % WIDTH].add(c[:, 0])),
    "two axes of ids": table_by_hand(
        lambda w, i, c: zeros(w).at[i[:, None], jnp.arange(WIDTH)[None, ::-1]].add(c)
    ),
    "columns": table_by_hand(lambda w, i, c: zeros(w).at[:ROWS, i].add(c[:, :ROWS])),
    "part of a row": table_by_hand(lambda w, i, c: zeros(w).at[i, 2:5].add(c[:, :3])),
    "clip": table_by_hand(lambda w, i, c: zeros(w).at[2 * i].add(c, mode="clip")),
    "drop": table_by_hand(lambda w, i, c: zeros(w).at[2 * i].add(c, mode="drop")),
    "negative": table_by_hand(lambda w, i, c: zeros(w).at[i - 8].add(c, mode="drop")),
    "negative, not wrapped": table_by_hand(
        lambda w, i, c: (
            zeros(w).at[i - 3].add(c, mode="drop", wrap_negative_indices=False)
        )
    ),
    "windows": table_by_hand(
        lambda w, i, c: lax.scatter_add(
            zeros(w),
            i[:, None],
            jnp.stack([c, 2 * c], 1),
            lax.ScatterDimensionNumbers((1, 2), (), (0,)),
        )
    ),
    "set": table_by_hand(lambda w, i, c: zeros(w).at[jnp.array([3, 1, 0, 6])].set(c)),
    "largest": table_by_hand(lambda w, i, c: zeros(w).at[i].max(c)),
    "product": table_by_hand(lambda w, i, c: jnp.ones_like(w).at[i].multiply(c)),
    "ids from the cotangent": table_by_hand(
        lambda w, i, c: zeros(w).at[jnp.argsort(c[:, 0])].add(c)
    ),
    # Products
    "twice its own factor": product_by_hand(lambda w, x, c: c.T @ c),
    "factor by factor": product_by_hand(lambda w, x, c: x.T @ c @ (c.T @ c)),
    "no cotangent": product_by_hand(lambda w, x, c: x.T @ x),
    "nothing": product_by_hand(lambda w, x, c: zeros(w)),
    "the cotangent alone": product_by_hand(
        lambda w, x, c: jnp.pad(c, ((0, 2), (0, 0)))
    ),
    "transposed": product_by_hand(lambda w, x, c: c.T @ x),
    "both ways": product_by_hand(lambda w, x, c: x.T @ c + c.T @ x),
    "two equal": product_by_hand(lambda w, x, c: x.T @ c + x.T @ c),
    "other rows": product_by_hand(lambda w, x, c: x.T @ c + x[:2].T @ c[2:]),
    "difference": product_by_hand(lambda w, x, c: x.T @ c - 2 * (x[::-1].T @ c)),
    "minus": product_by_hand(lambda w, x, c: -(x.T @ c)),
    "times": product_by_hand(lambda w, x, c: (x.T @ c) * w),
    "rounded between": product_by_hand(
        lambda w, x, c: (x.T @ c).astype(jnp.bfloat16).astype(jnp.float32)
    ),
    "rounded before": product_by_hand(
        lambda w, x, c: lax.dot_general(
            *(x.astype(jnp.bfloat16), c.astype(jnp.bfloat16)),
            (((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
    ),
    "cut to integers": product_by_hand(
        lambda w, x, c: (1e3 * (x.T @ c)).astype(jnp.int32).astype(jnp.float32)
    ),
    "tuple of axes": product_by_hand(
        lambda w, x, c: jnp.einsum(
            "abi,abj->ij", x.reshape(2, 2, -1), c.reshape(2, 2, -1)
        )
    ),
    "blocks": product_by_hand(
        lambda w, x, c: (
            jnp.einsum("rki,rkj->kij", x.reshape(ROWS, 2, 3), c.reshape(ROWS, 2, 3))
            .reshape(3, 6)
            .repeat(2, 0)
        )
    ),
    "an axis of tasks in the reshape": product_by_hand(
        lambda w, x, c: (x.T @ c).reshape(3, 2, 6).transpose(1, 0, 2).reshape(6, 6)
    ),
    "row by row": product_by_hand(
        lambda w, x, c: lax.fori_loop(
            *(0, ROWS), lambda r, g: g + x[r][:, None] * c[r][None, :], zeros(w)
        )
    ),
    "sum over rows": product_by_hand(
        lambda w, x, c: jnp.sum(x[:, :, None] * c[:, None, :], 0)
    ),
    "of zeros": product_by_hand(lambda w, x, c: (0 * x).T @ c),
    "infinite rows left out": product_by_hand(
        lambda w, x, c: jnp.where(jnp.isfinite(1 / (x - x)).all(), x, x[::-1]).T @ c
    ),
}


# --- programs -------------------------------------------------------------------------


def sum_of_weights(params, data):
    """One array is the gradient of two leaves."""
    return three(params, data["x"] @ (params["w"] + params["v"]))


def product_of_weights(params, data):
    return three(params, data["x"] @ (params["w"] @ params["v"]))


def joined_weights(params, data):
    both = jnp.concatenate([params["w"], params["v"]], 1)
    z, gate = jnp.split(data["x"] @ both, 2, axis=1)
    return three(params, z * jax.nn.sigmoid(gate))


def parts_of_a_weight(params, data):
    z = data["x"][:, :2] @ params["w"][:2] + data["x"][:, 3:] @ params["w"][3:]
    return three(params, z)


def both_orientations(params, data):
    return three(params, jnp.tanh(data["x"] @ params["w"]) @ params["w"].T)


def triangle(params, data):
    return three(params, data["x"] @ jnp.tril(params["w"]))


def halves(params, data):
    """Outputs of one equation, of which each task uses some."""
    left, right = jnp.split(data["x"] @ params["w"], 2, axis=1)
    a, b, c = params["heads"][:, :3]
    return {
        "a": jnp.mean((left @ a - 1) ** 2),
        "b": jnp.mean((right @ b - 2) ** 2),
        "c": jnp.mean((left @ c) * (right @ a)),
    }


def pairs(params, data):
    """Layers of every pair of tasks, and of all."""
    z = jnp.tanh(data["x"] @ params["w"])
    layers = jnp.split(params["v"], 3, axis=1)
    ab, bc, ca = (jnp.tanh(z @ layer) for layer in layers)
    a, b, c = params["heads"][:, :2]
    return {
        "a": jnp.mean((ab @ a + ca @ b) ** 2),
        "b": jnp.mean((ab @ b - bc @ c - 1) ** 2),
        "c": jnp.mean((bc @ c) * (ca @ a) + z[:, 0]),
    }


def one_scan(params, data):
    """The carry is one task's, what was put out others'."""

    def step(z, x):
        z = jnp.tanh(x[None, :] @ params["w"] + z @ params["v"])
        return z, (z, z**2)

    last, (each, squares) = lax.scan(step, jnp.zeros((1, WIDTH)), data["x"])
    return {"a": jnp.sum(last**2), "b": jnp.mean(each), "c": jnp.mean(squares[:2])}


def of_one_vector(params, data):
    losses = jnp.mean((jnp.tanh(data["x"] @ params["w"]) @ params["heads"].T) ** 2, 0)
    return {"a": losses[0], "b": losses[1] + losses[0], "c": losses @ losses}


def one_array_thrice(params, data):
    loss = jnp.mean((data["x"] @ params["w"]) ** 2)
    return {"a": loss, "b": loss, "c": loss}


def parameters_as_losses(params, data):
    """A loss that is an entry of a parameter, and one that is a constant."""
    return {"a": params["w"][0, 0], "b": jnp.sum(params["w"]), "c": jnp.float32(2.0)}


def not_differentiable(params, data):
    z = data["x"] @ params["w"]
    best = jnp.argmax(z, 1)
    return {
        "a": jnp.mean(jnp.take_along_axis(z, best[:, None], 1)),
        "b": jnp.mean(lax.stop_gradient(z) * (z @ params["v"])),
        "c": jnp.mean(jnp.round(z) + best[:, None]),
    }


def keys(params, data):
    """Random keys and bits among what the backward pass keeps."""

    @jax.checkpoint
    def noisy(w, x, key):
        kept = jax.random.bernoulli(key, 0.7, x.shape)
        return jnp.tanh(jnp.where(kept, x, 0) @ w)

    z = data["x"]
    for key in jax.random.split(jax.random.key(3), 2):
        z = noisy(params["w"], z, key)
    return three(params, z)


def messages(params, data):
    """Effects, in what is computed again too."""

    @jax.checkpoint
    def layer(w, x):
        z = jnp.tanh(x @ w)
        jax.debug.callback(lambda _: None, z)
        return z

    return three(params, layer(params["w"], layer(params["w"], data["x"])))


def named(params, data):
    with jax.named_scope("trunk"):
        z = jax.named_call(jnp.dot, name="layer")(data["x"], params["w"])
    return three(params, checkpoint_name(z, "z"))


def saved_by_name(params, data):
    policy = jax.checkpoint_policies.save_only_these_names("z")
    layer = jax.checkpoint(
        lambda w, x: jnp.tanh(checkpoint_name(x @ w, "z")),
        policy=policy,
    )
    return three(params, layer(params["v"], layer(params["w"], data["x"])))


def checkpoints_in_checkpoints(params, data):
    layer = jax.checkpoint(lambda w, x: jnp.tanh(x @ w))
    two = jax.jit(jax.checkpoint(lambda p, x: layer(p["v"], jax.jit(layer)(p["w"], x))))
    return three(params, two(params, data["x"]))


def a_row_at_a_time(params, data):
    """`vmap`, `lax.map` and their like around products with a vector."""
    z = jax.vmap(lambda x: jnp.tanh(params["w"].T @ x))(data["x"])
    return three(params, lax.map(lambda x: params["w"] @ x, z, batch_size=3))


def a_weight_for_each_row(params, data):
    """Fast weights: a product with a batch axis."""
    fast = params["w"][None] * jnp.tanh(data["x"])[:, None, :]
    return three(params, jnp.einsum("ri,rij->rj", data["x"], fast))


def outer_products(params, data):
    """Bilinear forms: two axes of one weight are summed over."""
    w = params["table"].reshape(-1)[: WIDTH * 6].reshape(2, 3, 6)
    x = data["x"].reshape(ROWS, 2, 3)
    return three(params, jnp.einsum("rij,ijk,rk->rk", x, w, data["x"]))


def linear_algebra(params, data):
    a = params["w"] @ params["w"].T + jnp.eye(WIDTH)
    root = jnp.linalg.cholesky(a)
    z = jax.scipy.linalg.solve_triangular(root, data["x"].T, lower=True).T
    z = z + jnp.linalg.solve(a, data["x"].T).T + jnp.linalg.inv(a)[:ROWS]
    return three(params, z + 0.1 * jnp.linalg.slogdet(a)[1])


def transforms(params, data):
    z = jnp.fft.irfft(jnp.fft.rfft(data["x"]) * jnp.fft.rfft(params["w"])[:1], WIDTH)
    return three(params, jnp.cumsum(z @ params["w"], 1) + jnp.cumprod(0.5 * z, 0))


def windows(params, data):
    """Convolutions of all kinds, and pooling."""
    x = data["x"].reshape(1, ROWS, WIDTH)
    kernel = params["w"][:, :, None].transpose(2, 0, 1)
    z = lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
    )
    each = params["v"][:3, None, :]
    z = lax.conv_general_dilated(
        *(z, each, (1,), "SAME"),
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=WIDTH,
    )
    z = lax.conv_transpose(
        z, kernel[:, :, :], (2,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
    )
    z = lax.reduce_window(z, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID")
    return three(params, z[0])


def whole_image(params, data):
    """A convolution that is a product, and whose batch is the rows."""
    x = data["x"].reshape(ROWS, 1, 1, WIDTH)
    kernel = params["w"][None, None]
    z = lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return three(params, z.reshape(ROWS, WIDTH))


def complex_between(params, data):
    z = data["x"] @ (params["w"] + 1j * params["v"])
    return three(params, jnp.real(z * jnp.conj(z)) * 0.3 + jnp.imag(z))


def unused(params, data):
    return three({**params, "v": jnp.eye(WIDTH)}, data["x"])


PROGRAMS = {
    fn.__name__: fn
    for fn in (
        sum_of_weights,
        product_of_weights,
        joined_weights,
        parts_of_a_weight,
        both_orientations,
        triangle,
        halves,
        pairs,
        one_scan,
        of_one_vector,
        one_array_thrice,
        parameters_as_losses,
        not_differentiable,
        keys,
        messages,
        named,
        saved_by_name,
        checkpoints_in_checkpoints,
        a_row_at_a_time,
        a_weight_for_each_row,
        outer_products,
        linear_algebra,
        transforms,
        windows,
        whole_image,
        complex_between,
        unused,
    )
}
