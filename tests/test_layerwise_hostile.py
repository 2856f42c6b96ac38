"""Lazy gradients of functions whose backward passes mislead whoever reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hostile_losses import BY_HAND, DATA, LOOK_UPS, PARAMS, PROGRAMS, of_table
from hostile_scans import ONE_BY_ONE, SCANS
from layerwise_runs import (
    cosine_error,
    gramian_error,
    inner_products,
    rows,
    update_error,
    weighted,
)

import mtl_optax as mtl

CASES = (
    {f"look up: {name}": of_table(fn) for name, fn in LOOK_UPS.items()}
    | {f"by hand: {name}": fn for name, fn in BY_HAND.items()}
    | PROGRAMS
    | SCANS
)
# Reference and lazy gradients of some functions share a program.
EACH = 25
WEIGHTS = np.array([0.7, -0.4, 1.5], np.float32)
GROUPS = [list(CASES)[i : i + EACH] for i in range(0, len(CASES), EACH)]


def row_by_row(losses_fn, params, data):
    """One gradient after the other: a backward pass that is no linear function of the
    cotangent, or adds a constant, runs for tasks that reach it."""
    names = sorted(jax.eval_shape(losses_fn, params, data))
    each = [jax.grad(lambda p, n=n: losses_fn(p, data)[n])(params) for n in names]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def gramian_and_sum(losses_fn, params, data):
    _, lazy = mtl.lazy_task_grads(losses_fn)(params, data)
    return mtl.gramian(lazy), mtl.combine(lazy.computed(), WEIGHTS)


@pytest.mark.slow
@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_gramian_and_sum(names):
    @jax.jit
    def both(params, data):
        return {
            name: (
                gramian_and_sum(CASES[name], params, data),
                row_by_row(CASES[name], params, data),
            )
            for name in names
        }

    for name, ((gramian, update), stacked) in both(PARAMS, DATA).items():
        each = rows(stacked)
        wanted = inner_products(each)
        assert np.all(np.isfinite(wanted)), name
        # A form may leave out one rounding of each gradient, here to bfloat16.
        bound = 2 * 2**-9 if "rounded" in name else 1e-6
        assert gramian_error(gramian, wanted) < 2 * bound, name
        assert cosine_error(gramian, wanted) < 5 * bound, name
        assert update_error(update, weighted(WEIGHTS, each)) < bound, name


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_backward_passes_without_a_batching_rule(name):
    """One cotangent at a time is all that they take."""

    def both(params, data):
        losses_fn = ONE_BY_ONE[name]
        return (
            gramian_and_sum(losses_fn, params, data),
            row_by_row(losses_fn, params, data),
        )

    (gramian, update), stacked = jax.jit(both)(PARAMS, DATA)
    each = rows(stacked)
    assert gramian_error(gramian, inner_products(each)) < 2e-6
    assert update_error(update, weighted(WEIGHTS, each)) < 1e-6
