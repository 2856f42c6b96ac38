"""One update of a method from a matrix, and what one asks of it in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods import BY_NAME, METHODS
from problems import flat, params_of, tree_of

WIDTH = 12
EPS = float(np.finfo(np.float32).eps)
# Many tasks repeat what few show; their compilation is what takes the time.
TASKS = [1, 2, 3, pytest.param(10, marks=pytest.mark.slow)]
TASKS.append(pytest.param(50, marks=pytest.mark.slow))
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def claiming(name):
    rows = [method for method in METHODS if name in method.claims]
    assert rows, name
    return pytest.mark.parametrize("method", rows, ids=lambda method: method.name)


def columns(num_tasks):
    """One width for each task count, so that a method compiles once for it."""
    return max(WIDTH, 2 * num_tasks)


@functools.cache
def compiled(method, num_tasks, names=()):
    """One update of a fresh state; hyper-parameters called `names` are traced."""

    def step(stacked, hyper, extras):
        tx = method.make(num_tasks, **dict(zip(names, hyper, strict=True)))
        params = params_of(stacked)
        return tx.update(stacked, tx.init(params), params, **extras)

    return jax.jit(step)


def run(method, matrix, extras=None, dtype="float32", **hyper):
    """Direction [P] in float64, and the new state."""
    num_tasks, width = matrix.shape
    stacked = tree_of(matrix, dtype, columns(num_tasks))
    if extras is None:
        extras = method.extras(num_tasks, params_of(stacked))
    step = compiled(method, num_tasks, tuple(hyper))
    update, state = step(stacked, tuple(map(jnp.asarray, hyper.values())), extras)
    return flat(update, width), state


def seen(matrix, dtype="float32"):
    """The matrix as the method sees it, in float64."""
    return np.asarray(matrix, dtype).astype(np.float64)


def direction(name, matrix, dtype="float32", **hyper):
    return run(BY_NAME[name], matrix, dtype=dtype, **hyper)[0]


def weights(name, matrix, dtype="float32", **hyper):
    state = run(BY_NAME[name], matrix, dtype=dtype, **hyper)[1]
    return np.asarray(state.task_weights, np.float64)


def lengths(matrix):
    return np.linalg.norm(matrix, axis=-1)


def cosines_with(matrix, update):
    """Cosine of the update with each task that has a gradient; 1 for a zero update."""
    matrix = matrix[lengths(matrix) > 0]
    if not update.any():
        return np.ones(1)
    # Scaled before squaring, which could leave the range of float64.
    update = update / np.abs(update).max()
    return (matrix / lengths(matrix)[:, None]) @ update / np.linalg.norm(update)


def assert_same(got, wanted, bound):
    """Equal up to `bound` relative to the larger of both."""
    size = max(np.max(np.abs(got)), np.max(np.abs(wanted)))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound * size)


SIZES = [2, 3, pytest.param(10, marks=pytest.mark.slow)]
SIZES.append(pytest.param(50, marks=pytest.mark.slow))
