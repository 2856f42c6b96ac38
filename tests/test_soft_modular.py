"""Soft modularisation: parameters, routes, tasks and owners, and plain loops for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_optax.nn import SoftModularNet, owner, shared

SHALLOW = {"num_layers": 2, "num_modules": 2, "module_dim": 256}
DEEP = {"num_layers": 4, "num_modules": 4, "module_dim": 128}
VARIANTS = pytest.mark.parametrize("variant", ["code", "paper"])
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def small(num_tasks=2, variant="code", **sizes):
    sizes = {"num_layers": 3, "num_modules": 3, "module_dim": 4} | sizes
    embed = {"embed_dim": 7, "gate_dim": 6, "rngs": nnx.Rngs(0)}
    return SoftModularNet(5, num_tasks, 2, variant=variant, **sizes, **embed)


@pytest.mark.parametrize(
    ("size", "obs_dim", "out_dim", "wanted"),
    [
        (SHALLOW, 39, 8, 691_022),
        (DEEP, 39, 8, 792_444),
        (SHALLOW, 43, 1, 690_823),
        (DEEP, 43, 1, 793_141),
    ],
)
def test_numbers_of_parameters_are_those_of_the_authors_code(
    size, obs_dim, out_dim, wanted
):
    net = nnx.eval_shape(
        lambda: SoftModularNet(obs_dim, 10, out_dim, **size, rngs=nnx.Rngs(0))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net))) == wanted


@VARIANTS
@pytest.mark.slow
def test_rows_of_routing_sum_to_one_and_are_nearly_uniform_at_first(variant):
    routing = small(variant=variant).routing(X)
    assert list(routing) == ["0", "1"]
    shapes = [(6, 3, 3), (6, 3, 3), (6, 1, 3)]
    assert [p.shape for p in routing["1"]] == shapes[: 3 if variant == "code" else 2]
    for p in jax.tree.leaves(routing):
        np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-6)
        np.testing.assert_allclose(p, 1 / 3, atol=1e-2)


@VARIANTS
@pytest.mark.slow
def test_one_module_knows_no_tasks(variant):
    net = small(variant=variant, num_modules=1, num_layers=2)
    ys = net(X)
    np.testing.assert_array_equal(ys["0"], ys["1"])
    two = small(variant=variant, num_modules=2, num_layers=2)
    two.router.logits[0].kernel[...] *= 1000
    ys = two(X)
    assert np.abs(ys["0"] - ys["1"]).max() > 1e-6


@pytest.mark.slow
def test_inputs_of_each_task_and_of_some_tasks():
    net = small(num_tasks=11)
    alike = net(X)
    assert list(alike) == sorted(alike)
    apart = net({"03": X[:2], "10": X})
    np.testing.assert_allclose(apart["03"], alike["03"][:2], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(apart["10"], alike["10"], rtol=1e-5, atol=1e-7)
    assert list(apart) == ["03", "10"]


@VARIANTS
def test_each_task_reads_its_row_of_the_embedding_only(variant):
    graphdef, params = nnx.split(small(variant=variant, num_layers=2))

    def losses(params):
        ys = nnx.merge(graphdef, params)(X)
        return [(ys[task] ** 2).mean() for task in ("0", "1")]

    rows = nnx.as_pure(jax.jit(jax.jacrev(losses))(params)[0])
    tasks = nnx.as_pure(owner(("0", "1"))(params))
    assert tasks["own"] == {"0": 0, "1": 1}
    assert np.all(rows["own"]["1"] == 0)
    assert np.any(rows["own"]["0"] != 0)
    # Two leaves are the tasks'; all others both tasks move.
    assert sum(not mask for mask in jax.tree.leaves(shared(params))) == 2


def test_errors_name_cause_and_cure():
    with pytest.raises(ValueError, match="num_layers must be at least 2"):
        small(num_layers=1)
    with pytest.raises(ValueError, match=r"2 different names.*\('a', 'a'\)"):
        small(tasks=("a", "a"))
    with pytest.raises(ValueError, match=r"there are no tasks \['b'\] among"):
        small()({"b": X})


# --- Against plain loops over the modules ---------------------------------------------


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
