"""The predicate on which `cond` branches once for all lanes of a `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mtl_optax.core.trees.any_lane import any_lane

ROWS = jnp.arange(1.0, 13).reshape(3, 4)
BROKEN = ROWS.at[1, 2].set(jnp.nan)
WANTED = jnp.nan_to_num(2 * BROKEN)
SLOPE = jnp.full((3, 4), 2.0).at[1, 2].set(0)


def doubled(row):
    """Twice the row, and zero where it is not a number."""
    odd = ~jnp.all(jnp.isfinite(row))
    return jax.lax.cond(
        any_lane(odd), lambda x: 2 * jnp.nan_to_num(x), lambda x: 2 * x, row
    )


def scanned(rows):
    return jax.lax.scan(lambda _, row: (0, doubled(row)), 0, rows)[1]


def total(row):
    return jnp.sum(doubled(row))


ONE_BY_ONE = jax.vmap(doubled)
PROGRAMS = {
    "vmap": (ONE_BY_ONE, WANTED),
    "scan of it": (lambda x: jax.vmap(scanned)(jnp.stack([x, x]))[0], WANTED),
    "vmap twice": (lambda x: jax.vmap(ONE_BY_ONE)(jnp.stack([ROWS, x]))[1], WANTED),
    "its gradient": (jax.vmap(jax.grad(total)), SLOPE),
    "gradient of it": (jax.grad(lambda x: jnp.sum(ONE_BY_ONE(x))), SLOPE),
    "its tangent": (lambda x: jax.jvp(ONE_BY_ONE, (x,), (ROWS,))[1], SLOPE * ROWS),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_cond_stays_a_cond(name):
    program, wanted = PROGRAMS[name]
    assert "cond[" in str(jax.make_jaxpr(program)(BROKEN))
    np.testing.assert_array_equal(jax.jit(program)(BROKEN), wanted)


@pytest.mark.parametrize("check_vma", [True, False])
def test_each_device_of_a_mesh_branches_by_itself(check_vma):
    mesh = jax.make_mesh((3,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")
    program = jax.shard_map(
        lambda rows: doubled(rows[0])[None],
        mesh=mesh,
        in_specs=split,
        out_specs=split,
        check_vma=check_vma,
    )
    np.testing.assert_array_equal(jax.jit(program)(BROKEN), WANTED)
