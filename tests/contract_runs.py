"""Updates that the contract checks share, compiled once a method.

Values are compared with `compiled(method)`, one jitted update of T = 3 tasks, because
the solvers take a second to compile.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods import METHODS

T = 3
SHAPES = {"kernel": (8, 2), "bias": (8,), "scale": ()}
EACH = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def gradients(num_tasks=T, seed=0, dtypes="float32"):
    """Stacked gradients of the parameters below; `dtypes` one, or one a leaf."""
    names = list(SHAPES)
    dtypes = [dtypes] * len(names) if isinstance(dtypes, str) else dtypes
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.standard_normal((num_tasks, *SHAPES[name])), dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    }


def params_like(stacked):
    return jax.tree.map(lambda g: jnp.zeros_like(g[0]), stacked)


PARAMS = params_like(gradients())


def updater(method, num_tasks=T, **hyper):
    """`(gradients, state, params, extras) -> (update, state)`, and the method."""
    tx = method.make(num_tasks, **hyper)
    return tx, lambda g, state, params, extras: tx.update(g, state, params, **extras)


@functools.cache
def compiled(method, num_tasks=T):
    """The method, and its jitted update."""
    tx, update = updater(method, num_tasks)
    return tx, jax.jit(update)


@functools.cache
def compiled_with_hyper(method):
    """One update of a fresh state, hyper-parameters as tracers."""

    def step(hyper, stacked, extras):
        tx, update = updater(method, **hyper)
        params = params_like(stacked)
        return update(stacked, tx.init(params), params, extras)

    return jax.jit(step)


def expected(method, stacked=None, extras=None):
    """The plain update of a fresh state."""
    tx, update = compiled(method)
    params = PARAMS if stacked is None else params_like(stacked)
    stacked = gradients() if stacked is None else stacked
    extras = method.extras(T, params) if extras is None else extras
    return update(stacked, tx.init(params), params, extras)


def assert_close(method, got, wanted, factor=1.0):
    """Equal within rounding, relative to the largest entry of the update."""
    chex.assert_trees_all_equal_shapes_and_dtypes(got, wanted)
    size = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(wanted))
    bound = factor * method.tolerance * float(size)
    assert np.isfinite(bound)
    chex.assert_trees_all_close(got, wanted, rtol=0, atol=bound)


def is_statistic(path):
    """Neither the key nor the record of the last update."""
    last = [getattr(entry, "name", "") for entry in path]
    return not {"key", "task_weights", "task_gramian"} & set(last)


def statistics(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [leaf for path, leaf in leaves if is_statistic(path)]
