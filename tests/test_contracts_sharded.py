"""Every method leaves sharded parameters where they are, on eight devices."""

import math
import re

import jax
import pytest
from contract_runs import EACH, PARAMS, T, assert_close, expected, gradients, updater
from jax.sharding import AxisType, NamedSharding, PartitionSpec

SPECS = {
    "kernel": PartitionSpec("data", None),
    "bias": PartitionSpec("data"),
    "scale": PartitionSpec(),
}


def put(tree, mesh, lead=()):
    """The tree on the mesh, parameter axes sharded, `lead` for axes before them."""
    return {
        name: jax.device_put(
            leaf, NamedSharding(mesh, PartitionSpec(*lead, *SPECS[name]))
        )
        for name, leaf in tree.items()
    }


def reduced_sizes(text):
    """Number of elements of each result of each all-reduce in the compiled program."""
    shapes = [
        shape
        for line in text.splitlines()
        for results in re.findall(r"= (.*?) all-reduce(?:-start)?\(", line)
        for shape in re.findall(r"\w+\[([\d,]*)\]", results)
    ]
    return [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


@EACH
@pytest.mark.parametrize(
    "axis_type",
    [AxisType.Explicit, pytest.param(AxisType.Auto, marks=pytest.mark.slow)],
    ids=str,
)
def test_sharded_parameters_stay_where_they_are(method, axis_type):
    wanted, _ = expected(method)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        params, stacked = put(PARAMS, mesh), put(gradients(), mesh, (None,))
        extras = method.extras(T, PARAMS)
        if method.draw == "uniforms":
            extras["uniforms"] = put(extras["uniforms"], mesh)
        tx, update = updater(method)
        state = jax.jit(tx.init)(params)
        program = jax.jit(update).lower(stacked, state, params, extras).compile()
        got, new = program(stacked, state, params, extras)
    assert_close(method, jax.device_get(got), jax.device_get(wanted))
    for mine, given in zip(*map(jax.tree.leaves, (got, params)), strict=True):
        assert mine.sharding.is_equivalent_to(given.sharding, mine.ndim)
        if axis_type == AxisType.Explicit:
            assert jax.typeof(mine) == jax.typeof(given)
    if axis_type == AxisType.Explicit:
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    text = program.as_text()
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    assert max(reduced_sizes(text), default=0) <= T * T
    assert reduced_sizes(text) or method.family != "gramian"
