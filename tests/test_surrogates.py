"""Inputs of another task like a task's own: means within the class."""

import jax.numpy as jnp
import numpy as np

from mtl_optax.nn import same_class_inputs


def test_surrogates_are_means_within_the_class():
    x, labels = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1])
    others = [(jnp.array([[2.0, 0.0], [0.0, 5.0], [9.0, 9.0]]), jnp.array([0, 0, 2]))]
    found = same_class_inputs(x, labels, others)
    np.testing.assert_array_equal(found.present, [[True, False]])
    a, b = np.exp(1) / (1 + np.exp(1)), 1 / (1 + np.exp(1))
    np.testing.assert_allclose(found.inputs[0], [[2 * a, 5 * b], [0, 0]], rtol=1e-5)
