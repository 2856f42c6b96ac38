"""Which form each weight takes: an upgrade of JAX must not lose it unseen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mtl_optax as mtl

pytestmark = pytest.mark.contract  # on the oldest and the newest JAX too
WIDTH, ROWS, TASKS = 32, 8, 3


def heads(h):
    return {
        f"task{t}": jnp.mean(h**2 * (t + jnp.arange(h.size).reshape(h.shape)))
        for t in range(TASKS)
    }


def mlp():
    model = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.Dense(WIDTH)])
    x = jnp.ones((ROWS, WIDTH))
    params = model.init(jax.random.key(0), x)
    return params, lambda params: heads(model.apply(params, x))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        x = x + self.attend(self.norm(x))
        return x + self.down(nnx.gelu(self.up(x)))


def transformer_block():
    graph, params = nnx.split(Block(nnx.Rngs(0)))
    x = jnp.ones((2, ROWS // 2, WIDTH))
    return params, lambda params: heads(nnx.merge(graph, params)(x))


def scanned_blocks(checkpoint):
    def block(x, weights):
        return x + jnp.tanh(x @ weights["up"]) @ weights["down"], None

    body = jax.checkpoint(block) if checkpoint else block
    params = {name: jnp.full((4, WIDTH, WIDTH), 0.01) for name in ("up", "down")}
    x = jnp.ones((ROWS, WIDTH))
    return params, lambda params: heads(jax.lax.scan(body, x, params)[0])


MODELS = {
    "mlp": mlp,
    "transformer block": transformer_block,
    "scanned blocks": lambda: scanned_blocks(False),
    "scanned blocks, rematerialised": lambda: scanned_blocks(True),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_takes_the_row_form(name, capsys):
    params, losses_fn = MODELS[name]()
    forms = mtl.explain(losses_fn)(params)
    weights = [row for row in forms if row.leaf.count("kernel") or "scan" in name]
    assert weights
    assert {row.form for row in weights} == {"rows"}
    assert {row.tasks for row in weights} == {TASKS}
    assert all(row.flops < row.direct for row in weights)
    assert str(forms) in capsys.readouterr().out


def test_lookups_keep_the_rows_that_were_looked_up(capsys):
    table = jnp.ones((100, 4))

    def losses_fn(table):
        return heads(table[jnp.array([3, 5, 3])])

    (row,) = mtl.explain(losses_fn)(table)
    assert row.form == "lookups"
    assert (row.kept, row.jacobian) == (TASKS * 3 * 4 * 4, TASKS * 100 * 4 * 4)


def test_what_each_form_needs_and_why(capsys):
    """Many rows, one owner, a convolution, no use at all, and forms as asked for."""
    params = {
        "kernel": jnp.ones((3, 3, 2, 2)),
        "trunk": jnp.ones((2, 2)),
        "wide": jnp.ones((2, 64)),
        "owned": jnp.ones(2),
        "unused": jnp.ones(5),
    }

    def losses_fn(params):
        x = jnp.ones((2, 6, 6, 2))
        x = jax.lax.conv_general_dilated(
            x,
            params["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        h = jnp.tanh(x.reshape(-1, 2) @ params["trunk"])
        return heads(h @ params["wide"]) | {"task2": jnp.sum(h @ params["owned"])}

    def found(form):
        rows = mtl.explain(losses_fn, form=form)(params)
        return {row.leaf[2:-2]: (row.form, row.why) for row in rows}

    auto = found("auto")
    assert {form for form, _ in auto.values()} == {"values"}
    assert auto["kernel"][1] == "convolutions are slower for tasks together"
    assert auto["owned"][1] == "one task reaches it"
    assert auto["unused"][1] == "no loss depends on it"
    assert auto["trunk"][1].startswith("no weight")
    by_rows, direct = found("rows"), found("direct")
    assert by_rows["trunk"] == ("rows", 'form="rows"')
    assert direct["trunk"] == ("values", 'form="direct"')
    assert by_rows["kernel"][0] == "values"


def test_forms_agree():
    params, losses_fn = transformer_block()

    @jax.jit
    def gramians(params):
        return [
            mtl.gramian(mtl.lazy_task_grads(losses_fn, form=form)(params)[1])
            for form in ("auto", "rows", "direct")
        ]

    auto, by_rows, direct = gramians(params)
    for other in (by_rows, direct):
        np.testing.assert_allclose(auto, other, atol=2e-6 * np.abs(auto).max())


def test_an_unknown_form_raises():
    message = r"form must be one of"
    with pytest.raises(ValueError, match=message):
        mtl.lazy_task_grads(lambda w: (w, w), form="row")
    with pytest.raises(ValueError, match=message):
        mtl.gramian_vjp(lambda c: c, jnp.eye(2), form="row")
