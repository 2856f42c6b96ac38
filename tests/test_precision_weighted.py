"""precision_weighted_mean against a loop over its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_optax as mtl


def test_by_hand():
    got = mtl.precision_weighted_mean(
        jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[1.0, 4.0], [2.0, 1.0]])
    )
    np.testing.assert_allclose(got, [2 / 3, 1.6], rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 3.0])
def test_number_by_number(power):
    rng = np.random.default_rng(0)
    means = rng.standard_normal((3, 2, 4))
    variances = 10.0 ** rng.uniform(-12, 3, (3, 2, 4))
    variances[1, 0, 0] = 0
    active = np.array([True, True, False])
    wanted = np.zeros((2, 4))
    for at in np.ndindex(2, 4):
        precision = [1 / max(variances[t, *at], 1e-8) ** power for t in (0, 1)]
        total = sum(p * means[t, *at] for t, p in enumerate(precision))
        wanted[at] = total / sum(precision)
    means[2], variances[2] = np.nan, np.nan
    got = jax.jit(mtl.precision_weighted_mean)(
        {"z": jnp.asarray(means, jnp.float32)},
        {"z": jnp.asarray(variances, jnp.float32)},
        power=jnp.float32(power),
        active=active,
    )
    np.testing.assert_allclose(got["z"], wanted, rtol=2e-5, atol=1e-6)
    by_name = mtl.precision_weighted_mean(
        jnp.asarray(means, jnp.float32),
        jnp.asarray(variances, jnp.float32),
        power=power,
        active={"c": False, "a": True, "b": True},
    )
    np.testing.assert_allclose(by_name, got["z"], rtol=1e-6)


def test_dtypes_and_the_ends_of_them():
    """Never NaN: precisions that overflow, variances without end, nobody there."""
    means = jnp.array([[1.0, 3.0], [2.0, 5.0]], jnp.bfloat16)
    variances = jnp.array([[0.0, jnp.inf], [0.0, jnp.inf]], jnp.bfloat16)
    got = mtl.precision_weighted_mean(means, variances, power=5.0)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got.astype(float), [1.5, 4])
    nobody = mtl.precision_weighted_mean(means, variances, active=jnp.zeros(2, bool))
    np.testing.assert_array_equal(nobody.astype(float), 0)
    whole = mtl.precision_weighted_mean(jnp.array([1, 2]), jnp.array([1, 1]))
    assert whole == 1.5


@pytest.mark.parametrize(
    ("means", "variances", "message"),
    [
        ({"a": jnp.ones(2)}, {"b": jnp.ones(2)}, "a tree like the means"),
        (
            jnp.ones((2, 3)),
            jnp.ones((2, 1)),
            r"got \(2, 3\) and \(2, 1\).*broadcast_to",
        ),
        ([jnp.ones(2), jnp.ones(3)], [jnp.ones(2), jnp.ones(3)], "tasks on its first"),
        (jnp.ones(()), jnp.ones(()), "tasks on its first axis"),
    ],
)
def test_what_does_not_fit(means, variances, message):
    with pytest.raises(ValueError, match=message):
        mtl.precision_weighted_mean(means, variances)
