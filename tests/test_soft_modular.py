"""Soft modularisation: numbers of parameters, routing weights, tasks and owners."""

import jax
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
def test_rows_of_routing_sum_to_one_and_are_nearly_uniform_at_first(variant):
    routing = small(variant=variant).routing(X)
    assert list(routing) == ["0", "1"]
    shapes = [(6, 3, 3), (6, 3, 3), (6, 1, 3)]
    assert [p.shape for p in routing["1"]] == shapes[: 3 if variant == "code" else 2]
    for p in jax.tree.leaves(routing):
        np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-6)
        np.testing.assert_allclose(p, 1 / 3, atol=1e-2)


@VARIANTS
def test_one_module_knows_no_tasks(variant):
    net = small(variant=variant, num_modules=1, num_layers=2)
    ys = net(X)
    np.testing.assert_array_equal(ys["0"], ys["1"])
    two = small(variant=variant, num_modules=2, num_layers=2)
    two.router.logits[0].kernel[...] *= 1000
    ys = two(X)
    assert np.abs(ys["0"] - ys["1"]).max() > 1e-6


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
