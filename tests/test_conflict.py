"""Measures of conflict between gradients, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import as_rows

import mtl_optax as mtl
from mtl_optax.analysis import conflict

RNG = np.random.default_rng(0)


def by_hand(stacked):
    """The three matrices in float64, from the concatenated gradients."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(stacked)]
    rows = np.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)
    norms = np.linalg.norm(rows, axis=1)
    product, squares = np.outer(norms, norms), norms**2
    return {
        "cosine_similarity": rows @ rows.T / product,
        "magnitude_similarity": 2 * product / np.add.outer(squares, squares),
        "conflict_fraction": (rows[:, None] * rows[None] < 0).mean(axis=-1),
    }


def gradients(num_tasks, dtype=jnp.float32):
    scales = 10.0 ** np.arange(num_tasks)
    shapes = {"a": (3, 5), "scalar": (), "long": (4500,)}
    return {
        name: jnp.asarray(
            RNG.normal(size=(num_tasks, *shape))
            * scales.reshape(-1, *[1] * len(shape)),
            dtype,
        )
        for name, shape in shapes.items()
    }


MEASURES = ["cosine_similarity", "magnitude_similarity", "conflict_fraction"]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("form", ["stacked", "rows"])
@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.slow
def test_conflict_measures(measure, form, num_tasks, dtype):
    stacked = gradients(num_tasks, dtype)
    given = stacked if form == "stacked" else as_rows(stacked, num_tasks)
    got = jax.jit(lambda: getattr(conflict, measure)(given))()
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, by_hand(stacked)[measure], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got, got.T)


@pytest.mark.parametrize("measure", MEASURES)
def test_conflict_measures_take_lazy_gradients_inside_jit(measure):
    params = {"w": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array(0.3)}

    def losses(params, x):
        out = jnp.vdot(params["w"], x) + params["b"]
        return {"one": out**2, "two": -3 * out + params["b"] ** 2}

    @jax.jit
    def both(params, x):
        _, lazy = mtl.lazy_task_grads(losses)(params, x)
        _, stacked = mtl.task_grads(losses)(params, x)
        return getattr(conflict, measure)(lazy), getattr(conflict, measure)(stacked)

    lazy, stacked = both(params, jnp.array([0.3, 1.0, 2.0]))
    np.testing.assert_allclose(lazy, stacked, rtol=1e-6)


def test_norms_1_and_3_have_magnitude_similarity_of_the_paper():
    stacked = {"w": jnp.array([[1.0, 0.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.0]])}
    got = conflict.magnitude_similarity(stacked)
    expected = [[1, 0.6, 0, 0], [0.6, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_conflict_of_zero_and_tiny_gradients():
    stacked = {"w": jnp.array([[1e-30, 1e-30], [-1e-30, 1e-30], [0.0, 0.0]])}
    got = conflict.conflict_fraction(stacked)  # products of entries underflow
    np.testing.assert_array_equal(got, [[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    zero = {"w": jnp.array([[3.0, 4.0], [0.0, 0.0]])}
    np.testing.assert_array_equal(conflict.cosine_similarity(zero), np.eye(2))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_conflict_measures_of_sharded_gradients(axis_type):
    kind = getattr(jax.sharding.AxisType, axis_type)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    spec = jax.sharding.PartitionSpec(None, "x")
    stacked = {"w": jnp.asarray(RNG.normal(size=(3, 16)), jnp.float32)}
    sharded = jax.device_put(stacked, jax.sharding.NamedSharding(mesh, spec))
    for measure in MEASURES:
        got = jax.jit(getattr(conflict, measure))(sharded)
        np.testing.assert_allclose(got, by_hand(stacked)[measure], atol=1e-6)


def test_conflict_is_float64_under_x64(x64):
    stacked = gradients(2, jnp.float64)
    for measure in MEASURES:
        got = getattr(conflict, measure)(stacked)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, by_hand(stacked)[measure], rtol=1e-10)


def test_conflict_over_seeds_and_without_coordinates():
    stacked = jnp.asarray(RNG.normal(size=(4, 2, 7)), jnp.float32)
    for measure in MEASURES:
        function = getattr(conflict, measure)
        expected = jnp.stack([function({"w": x}) for x in stacked])
        got = jax.vmap(function)({"w": stacked})
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        with pytest.raises(ValueError, match=r"no (leaves|coordinates)"):
            function({})
    with pytest.raises(ValueError, match="no coordinates"):
        conflict.conflict_fraction({"w": jnp.zeros((2, 0))})
