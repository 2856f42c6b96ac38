"""Faults that were found in gradients layer by layer, one test for each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hostile_losses import DATA, PARAMS, ROWS, WIDTH, three
from hostile_scans import same_inputs
from jax import export, lax
from layerwise_runs import (
    cosine_error,
    gramian_error,
    inner_products,
    rows,
    stacked_by_jax,
    update_error,
    weighted,
)
from test_layerwise_hostile import WEIGHTS, gramian_and_sum, row_by_row

import mtl_optax as mtl

X = DATA["x"]


def by_hand(backward):
    """`x @ w` with a gradient of `w` by hand."""

    @jax.custom_vjp
    def product(w, x):
        return x @ w

    def back(kept, cotangent):
        w, x = kept
        return backward(x, cotangent), cotangent @ w.T

    product.defvjp(lambda w, x: (x @ w, (w, x)), back)
    return lambda params, x: three(params, product(params["w"], x))


def padded(number):
    """Rows that are left out hold a huge number, as missing values do."""

    def losses(params, x):
        x = jnp.concatenate([x, jnp.full((2, WIDTH), number, x.dtype)])
        z = jnp.where((x < 1e8).all(1)[:, None], x @ params["w"], 0)
        return three(params, z)

    return losses


def looked_up(dtype):
    """Ids of a type that cannot hold the number of the table's rows.

    XLA's own scatter may lose some of these, so they are compared with long ones.
    """
    ids = jnp.array([2, 120, 0, 2], dtype)[:, None]
    numbers = lax.GatherDimensionNumbers((1,), (0,), (0,))

    def losses(params, x):
        table = params["long"]
        options = {"mode": "fill", "fill_value": 0}
        z = lax.gather(table, ids, numbers, (1, WIDTH), **options)
        return three(params, z + x)

    return losses


def nothing(params, x):
    """A leaf without numbers."""
    return three(params, x @ jnp.concatenate([params["w"], params["none"]], 1))


def empty_product(params, x):
    return three(params, jnp.concatenate([x @ params["w"], x @ params["none"]], 1))


CASES = {
    "a reshape that transposes": by_hand(
        lambda x, c: lax.reshape(c.T @ x, (WIDTH, WIDTH), dimensions=(1, 0))
    ),
    "padding 1e20": padded(1e20),
    "padding 3e38": padded(3e38),
    "ids int8": looked_up(jnp.int8),
    "ids uint8": looked_up(jnp.uint8),
    "an empty leaf": nothing,
    "an empty product": empty_product,
}
LARGER = PARAMS | {
    "long": jnp.asarray(
        np.random.default_rng(1).normal(size=(300, WIDTH)), jnp.float32
    ),
    "none": jnp.zeros((WIDTH, 0)),
}


@pytest.mark.slow
def test_gramian_and_sum():
    @jax.jit
    def both(params, x):
        return {
            name: (
                gramian_and_sum(fn, params, x),
                row_by_row(long_ids if name.startswith("ids") else fn, params, x),
            )
            for name, fn in CASES.items()
        }

    long_ids = looked_up(jnp.int32)
    for name, ((gramian, update), stacked) in both(LARGER, X).items():
        each = rows(stacked)
        wanted = inner_products(each)
        assert gramian_error(gramian, wanted) < 2e-6, name
        assert cosine_error(gramian, wanted) < 5e-6, name
        assert update_error(update, weighted(WEIGHTS, each)) < 1e-6, name


# --- what should go by rows -----------------------------------------------------------

WIDE, BATCH = 32, 4
WIDE_PARAMS = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in {
        "w": (WIDE, WIDE),
        "stack": (3, WIDE, WIDE),
        "out": (WIDE, 3),
        "heads": (3, WIDE),
    }.items()
}


def heads(params, z):
    return {n: jnp.mean((z @ params["heads"][i]) ** 2) for i, n in enumerate("abc")}


def outputs_split(params, z):
    a, b, c = jnp.split(z @ params["out"], 3, axis=1)
    return {"a": jnp.mean(a**2), "b": jnp.mean(b**3), "c": jnp.mean(c)}


def batch_split(params, z):
    parts = jnp.split(jnp.concatenate([z, 2 * z, -z]), 3)
    return {n: jnp.mean(part**2) for n, part in zip("abc", parts, strict=True)}


def heads_again(params, z):
    return jax.checkpoint(heads)(params, z)


def branches(params, z):
    return lax.cond(z[0, 0] > 0, heads, lambda p, z: heads(p, 2 * z), params, z)


def two_outputs(params, z):
    @jax.custom_vjp
    def both(z):
        return jnp.tanh(z), z**2

    both.defvjp(lambda z: (both(z), z), lambda z, c: (c[0] + 2 * z * c[1],))
    left, right = both(z)
    return {**heads(params, left), "d": jnp.mean(right)}


def from_the_middle(params, z):
    """One task reads an earlier layer too."""
    last = jnp.tanh(z @ params["stack"][0])
    losses = heads(params, last)
    return {**losses, "a": losses["a"] + jnp.mean(z)}


def beside_a_scan(params, z):
    """One task reads what the layers put out."""

    def step(z, w):
        z = jnp.tanh(z @ w)
        return z, jnp.mean(z**2)

    z, each = lax.scan(step, z, params["stack"])
    return {**heads(params, z), "d": jnp.sum(each)}


PARTED = [
    outputs_split,
    batch_split,
    heads_again,
    branches,
    two_outputs,
    from_the_middle,
    beside_a_scan,
]


@pytest.mark.parametrize("losses_fn", PARTED, ids=lambda fn: fn.__name__)
def test_a_trunk_goes_by_rows_where_tasks_part(losses_fn, capsys):
    trunk = lambda params, x: losses_fn(params, jnp.tanh(x @ params["w"]))  # noqa: E731
    x = jnp.ones((BATCH, WIDE))
    found = mtl.explain(trunk)(WIDE_PARAMS, x)
    capsys.readouterr()
    forms = {row.leaf: (row.form, row.why) for row in found}
    assert forms["['w']"][0] == "rows", forms
    if losses_fn is beside_a_scan:
        assert forms["['stack']"][0] == "rows", forms
    if losses_fn is heads_again:
        assert "outputs of their own" in forms["['heads']"][1]


@pytest.mark.slow
def test_values_where_tasks_part():
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), WIDE_PARAMS
    )
    x = jnp.asarray(rng.normal(size=(BATCH, WIDE)), jnp.float32)

    @jax.jit
    def each(params, x):
        found = {}
        for fn in PARTED:
            run = lambda p, x, fn=fn: fn(p, jnp.tanh(x @ p["w"]))  # noqa: E731
            _, lazy = mtl.lazy_task_grads(run)(params, x)
            found[fn.__name__] = mtl.gramian(lazy), row_by_row(run, params, x)
        return found

    for name, (gramian, stacked) in each(params, x).items():
        assert cosine_error(gramian, inner_products(rows(stacked))) < 5e-6, name


def test_a_factor_that_all_steps_share_is_not_written_by_each():
    def gramian(params, data):
        return mtl.gramian(
            mtl.lazy_task_grads(same_inputs, form="rows")(params, data)[1]
        )

    jaxpr = jax.make_jaxpr(gramian)(PARAMS, DATA).jaxpr
    shapes = [
        var.aval.shape
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "scan" and eqn.params.get("length") == 2
        for var in eqn.outvars
        if eqn.params["reverse"]
    ]
    assert (2, 3, ROWS, WIDTH) in shapes  # factors with a task axis
    assert (2, ROWS, WIDTH) not in shapes


# --- where a step may be --------------------------------------------------------------


def tanh_layer(params, x):
    return three(params, jnp.tanh(x @ params["w"]))


def test_a_batch_of_symbolic_size():
    """Costs of symbolic sizes cannot be compared."""

    def gramian(params, x):
        return mtl.gramian(mtl.lazy_task_grads(tanh_layer)(params, x)[1])

    (size,) = export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((size, WIDTH), jnp.float32)
    exported = export.export(jax.jit(gramian))(PARAMS, x)
    assert exported.out_avals[0].shape == (3, 3)


@pytest.mark.parametrize("form", ["rows", "direct"])
def test_derivatives_of_long_sums(form, monkeypatch):
    """More numbers than one slice has: one CPU's loop over slices has derivatives."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    wide = 80
    rng = np.random.default_rng(0)
    w = jnp.asarray(0.1 * rng.normal(size=(wide, wide)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(64, wide)), jnp.float32)

    def losses(w):
        z = jnp.tanh(x @ w)
        return [jnp.mean(z**2), jnp.mean(z)]

    def ours(w):
        return jnp.sum(mtl.gramian(mtl.lazy_task_grads(losses, form=form)(w)[1]))

    def wanted(w):
        stacked, _ = stacked_by_jax(losses, w)
        flat = stacked.reshape(2, -1)
        return jnp.sum(flat @ flat.T)

    found, right = jax.jit(lambda w: (jax.grad(ours)(w), jax.grad(wanted)(w)))(w)
    np.testing.assert_allclose(found, right, atol=2e-6 * np.max(abs(right)))


def test_one_cotangent():
    loss, pullback = jax.vjp(lambda w: jnp.sum(jnp.tanh(X @ w)), PARAMS["w"])
    gramian, combine = mtl.gramian_vjp(pullback, jnp.ones(1))
    (gradient,) = pullback(jnp.ones_like(loss))
    np.testing.assert_allclose(gramian, [[jnp.sum(gradient**2)]], rtol=1e-6)
    np.testing.assert_allclose(combine(jnp.array([2.0]))[0], 2 * gradient, rtol=1e-6)


def test_complex_gradients_are_refused():
    w = PARAMS["w"] + 1j * PARAMS["v"]
    _, pullback = jax.vjp(lambda w: jnp.mean(jnp.abs(X @ w) ** 2, 0), w)
    with pytest.raises(ValueError, match="differentiate with respect to real and imag"):
        mtl.gramian_vjp(pullback, jnp.eye(WIDTH))


def test_the_largest_numbers():
    """Beyond the last power of two, of which the size would be infinite."""
    scale = jnp.float32(2.6e38)
    losses_fn = lambda w: {"a": w[0] * scale, "b": w[0] + w[1]}  # noqa: E731
    lazy = mtl.lazy_task_grads(losses_fn)(jnp.ones(2))[1]
    gramian, unit = jax.jit(lambda: lazy.computed().measure())()
    found = np.sqrt(np.float64(gramian[0, 0])) * np.float64(unit)
    np.testing.assert_allclose(found, 2.6e38, rtol=1e-5)
