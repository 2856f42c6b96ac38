"""Task weights from temperatures: the numbers of paper and code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_optax.nn import temperature_task_weights


def test_weights_from_temperatures():
    log_alpha = jnp.array([0.0, -1.0, -3.0, 0.5])
    weights = temperature_task_weights(log_alpha)
    np.testing.assert_allclose(weights, [0.164, 0.445, 3.291, 0.099], atol=5e-4)
    np.testing.assert_allclose(weights.sum(), 4, rtol=1e-6)
    paper = temperature_task_weights(log_alpha, form="paper")
    np.testing.assert_allclose(4 * paper, [0.668, 1.256, 1.727, 0.349], atol=5e-4)
    np.testing.assert_allclose(paper.sum(), 1, rtol=1e-6)
    for form in ("code", "paper"):
        grads = jax.jacobian(lambda a, form=form: temperature_task_weights(a, form))
        np.testing.assert_array_equal(grads(log_alpha), 0)


def test_an_unknown_form_is_an_error():
    with pytest.raises(ValueError, match="form must be one of 'code', 'paper'"):
        temperature_task_weights(jnp.zeros(2), form="mine")
